// Watches a job with the socket.io-client that browsers use, and prints every event as one line of JSON: `{event, payload}`.
//
//   RUNCAST_TOKEN=… node watch.ts URL JOB_ID [AFTER_SEQ [websocket|polling]] [--drop-after LINES] [--all]
//
// Exits with 0 at `complete`, and with 1 when the connection or the subscription is refused. `--drop-after` breaks the connection each time this many
// lines have come, without telling the server, and resumes after the last line seen. `--all` also subscribes to all jobs. Besides the contract's
// events it prints `connect`, `disconnect`, `connect_error` and `ack`.
import { parseArgs } from 'node:util'
import { io } from 'socket.io-client'

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { 'drop-after': { type: 'string' }, all: { type: 'boolean', default: false } },
})
const [url = '', jobId = '', afterSeq = '0', transport = 'websocket'] = positionals
const dropAfter = Number(options['drop-after'] ?? Infinity)
const socket = io(url, {
  auth: { token: process.env.RUNCAST_TOKEN },
  transports: [transport],
  reconnectionDelay: 20,
  reconnectionDelayMax: 100,
})
let seen = Number(afterSeq)
let sinceConnect = 0

const print = (event: string, payload: unknown) => process.stdout.write(`${JSON.stringify({ event, payload })}\n`)

function end(status: number): void {
  process.exitCode = status
  socket.close()
}

async function subscribe(payload: { all: true } | { job_id: string; after_seq: number }): Promise<void> {
  const answer = await socket.emitWithAck('subscribe', payload).catch(() => null)
  if (answer === null) return // the connection was lost first; the next one subscribes again
  print('ack', answer)
  if (!answer.ok) end(1)
}

socket.on('connect', async () => {
  sinceConnect = 0
  // Events of the last connection may be delivered just before `connect`, and may have made us drop this connection, too. What is sent then would
  // wait, and would subscribe from an old line next time.
  if (!socket.connected) return
  print('connect', { transport: socket.io.engine.transport.name })
  if (options.all) await subscribe({ all: true })
  await subscribe({ job_id: jobId, after_seq: seen })
})
socket.on('disconnect', reason => print('disconnect', { reason }))
socket.on('connect_error', (error: Error & { data?: unknown }) => {
  print('connect_error', { message: error.message, data: error.data ?? null })
  // Without data the network has failed, and the client tries again by itself.
  if (error.data) end(1)
})
socket.onAny((event: string, payload: { job_id: string; first_seq: number; lines: string[] }) => {
  print(event, payload)
  if (event === 'log') {
    seen = payload.first_seq + payload.lines.length - 1
    sinceConnect += payload.lines.length
    if (sinceConnect >= dropAfter) {
      sinceConnect = 0
      socket.io.engine.close()
    }
  } else if (event === 'complete' && payload.job_id === jobId) {
    end(0)
  }
})
