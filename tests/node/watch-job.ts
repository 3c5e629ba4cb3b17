// Watches a job with the typed client of `console/client`, and prints every event as one line of JSON.
//
//   RUNCAST_TOKEN=… node watch-job.ts URL JOB_ID [--after-seq N] [--transport websocket|polling]
//                                               [--sleep-after LINES --sleep-until FILE] [--stop-after LINES]
//
// Exits with 0 after the last event, and with 1, after `{type: "refused", problem}`, when the server refuses. `--sleep-after` makes a slow reader: it
// reads nothing more once this many lines have come, until the file exists; the client itself goes on. `--stop-after` leaves the loop.
import { existsSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { createClient, ProblemError } from '../../console/client/dist/index.js'

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    'after-seq': { type: 'string', default: '0' },
    transport: { type: 'string' },
    'sleep-after': { type: 'string', default: 'Infinity' },
    'sleep-until': { type: 'string' },
    'stop-after': { type: 'string', default: 'Infinity' },
  },
})
const [baseUrl = '', jobId = ''] = positionals
const transport = options.transport as 'websocket' | 'polling' | undefined
const print = (event: object) => process.stdout.write(`${JSON.stringify(event)}\n`)
const runcast = createClient({ baseUrl, token: process.env.RUNCAST_TOKEN ?? '', ...(transport && { transports: [transport] }) })
let lines = 0

try {
  for await (const event of runcast.watchJob(jobId, { afterSeq: Number(options['after-seq']) })) {
    print(event)
    if (event.type === 'log') lines += event.lines.length
    if (lines >= Number(options['stop-after'])) break
    if (lines >= Number(options['sleep-after'])) {
      while (!existsSync(options['sleep-until'] ?? '')) await new Promise(resolve => setTimeout(resolve, 20))
      print({ type: 'awake', memory: process.memoryUsage().heapUsed })
      options['sleep-after'] = 'Infinity'
    }
  }
} catch (error) {
  if (!(error instanceof ProblemError)) throw error
  print({ type: 'refused', problem: error.problem })
  process.exitCode = 1
}
