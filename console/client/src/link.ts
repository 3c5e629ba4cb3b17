import { io, type Socket } from 'socket.io-client'
import type { Auth, ClientToServerEvents, components, ServerToClientEvents } from './generated/events.js'
import { isProblem, type Problem } from './problem.js'

type Payloads = components['schemas']
export type SubscribePayload = Payloads['subscribe_event']
export type SubscribeAnswer = Extract<Payloads['subscribe_ack_event'], { ok: true }>

/** A server and how to reach it. */
export interface Server {
  /** Where the server is, such as `https://jobs.example.com`, with the path prefix of a proxy if there is one. */
  baseUrl: string
  token: string
  /** `websocket` first, and long-polling where WebSocket is not available. */
  transports?: ('websocket' | 'polling')[]
}

/** The events of a link. After `lost`, `refused` or `close`, none of them is called any more. */
export interface LinkEvents {
  subscribed(answer: SubscribeAnswer): void
  /** The token or the subscription is refused. */
  refused(problem: Problem): void
  /** The connection could not be made, or was lost. */
  lost(reason: string): void
  log?(payload: Payloads['log_event']): void
  progress?(payload: Payloads['progress_event']): void
  status?(payload: Payloads['status_event']): void
  complete?(payload: Payloads['complete_event']): void
  error?(payload: Payloads['error_event']): void
}

const ANSWER_MS = 20_000

/**
 * Opens one connection with one subscription; returns a function that closes it.
 *
 * It never reconnects. A socket that reconnects may deliver events of the last connection just before the next `connect`, and it queues what is sent
 * while it is not connected. A new socket for each connection does neither, so each event is known to follow this subscription.
 */
export function openLink({ baseUrl, token, transports }: Server, subscribe: SubscribePayload, events: LinkEvents): () => void {
  const { origin, path } = addressOf(baseUrl)
  const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io(origin, {
    path: `${path}/socket.io`,
    auth: { token } satisfies Auth,
    transports: transports ?? ['websocket', 'polling'],
    tryAllTransports: true,
    forceNew: true,
    reconnection: false,
  })

  function end(tell: () => void): void {
    close()
    tell()
  }

  function close(): void {
    socket.off()
    socket.disconnect()
  }

  socket.on('connect', () => {
    socket.timeout(ANSWER_MS).emit('subscribe', subscribe, (late: Error | null, answer) => {
      if (!socket.connected) return
      if (late) end(() => events.lost('The server does not answer.'))
      else if (answer.ok) events.subscribed(answer)
      else end(() => events.refused(answer.problem))
    })
  })
  socket.on('connect_error', error => {
    const problem: unknown = (error as Error & { data?: unknown }).data
    end(() => (isProblem(problem) ? events.refused(problem) : events.lost(error.message)))
  })
  socket.on('disconnect', reason => end(() => events.lost(reason)))
  socket.on('log', payload => events.log?.(payload))
  socket.on('progress', payload => events.progress?.(payload))
  socket.on('status', payload => events.status?.(payload))
  socket.on('complete', payload => events.complete?.(payload))
  socket.on('error', payload => events.error?.(payload))
  return close
}

/** The origin, and the path prefix without a slash at its end. */
export function addressOf(baseUrl: string): { origin: string; path: string } {
  const { origin, pathname } = new URL(baseUrl)
  return { origin, path: pathname.replace(/\/+$/, '') }
}
