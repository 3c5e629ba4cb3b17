// One connection to the server, controlled by the user, and a record of all events that went over it. Knows no page.
//
// It follows the contract: it subscribes again after every `connect`, after the last line that came, and sends nothing while it is not connected.
// Every message, in either direction, is checked against its schema before it is recorded.
import { io, type Socket } from 'socket.io-client'
import type { Json, JsonObject } from './contracts'
import type { Schemas, Violation } from './schemas'

export type State =
  | { readonly kind: 'off'; readonly detail?: string }
  | { readonly kind: 'connecting' }
  | { readonly kind: 'on'; readonly transport: string }
  | { readonly kind: 'lost'; readonly attempts: number }
  | { readonly kind: 'refused'; readonly detail: string }

/** `in` from the server, `out` to it, `own` what happened to the connection. */
export type Direction = 'in' | 'out' | 'own'

export interface Entry {
  readonly number: number
  readonly at: Date
  readonly direction: Direction
  /** The message's name in the contract; for `own`, what happened. */
  readonly name: string
  readonly payload: Json | undefined
  readonly violations: readonly Violation[]
}

export type Subscription = { readonly all: true } | { readonly job_id: string; readonly after_seq: number }
export type Wanted = Subscription & { readonly state: 'asked' | 'on' | 'ended' }

export interface View {
  readonly state: State
  readonly subscriptions: ReadonlyMap<string, Wanted>
  readonly entries: readonly Entry[]
  /** How many entries were recorded and are not kept any more. */
  readonly dropped: number
  /** How many of each name there were, kept or not. */
  readonly counts: ReadonlyMap<string, number>
  readonly invalid: number
  /** How many entries wait until the user resumes. */
  readonly held: number
  readonly paused: boolean
}

const MOST_ENTRIES = 1000
/** About as many characters of payloads are kept. */
const MOST_SIZE = 16 << 20
const ALL = 'all'
const NOT_SHOWN = '•••'

export class Connection {
  private socket: Socket | undefined
  private state: State = { kind: 'off' }
  private subscriptions = new Map<string, Wanted>()
  private entries: Entry[] = []
  private sizes: number[] = []
  private size = 0
  private waiting: Entry[] = []
  private dropped = 0
  private counts = new Map<string, number>()
  private invalid = 0
  private paused = false
  private number = 0
  private view: View
  private readonly listeners = new Set<() => void>()
  private due = false

  constructor(
    private readonly url: string,
    private readonly path: string,
    private readonly schemas: Schemas,
  ) {
    this.view = this.makeView()
  }

  // What the page sees

  readonly subscribeToView = (listener: () => void): (() => void) => {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  readonly getView = (): View => this.view

  // What the user does

  connect(token: string): void {
    this.close()
    const auth = { token }
    this.record('out', 'connect', { token: NOT_SHOWN }, this.schemas.violations('connect', auth))
    this.become({ kind: 'connecting' })
    // WebSocket first: with the usual upgrade from long-polling, a refusal could arrive in the middle of the upgrade.
    const transports = ['websocket', 'polling']
    const options = { transports, tryAllTransports: true, forceNew: true, reconnectionDelay: 500, reconnectionDelayMax: 5000 }
    const socket = io(this.url, { path: this.path, auth, ...options })
    this.socket = socket
    socket.on('connect', () => this.connected(socket))
    socket.on('disconnect', reason => this.disconnected(socket, reason))
    socket.on('connect_error', error => this.notConnected(socket, error as Error & { data?: Json }))
    socket.io.on('reconnect_attempt', attempts => this.become({ kind: 'lost', attempts }))
    socket.onAny((name: string, ...payloads: Json[]) => this.received(name, payloads))
  }

  disconnect(): void {
    if (!this.socket) return
    this.close()
    this.forgetSubscribed()
    this.record('own', 'disconnected', undefined, [])
    this.become({ kind: 'off' })
  }

  async subscribe(subscription: Subscription): Promise<void> {
    const key = keyOf(subscription)
    this.want(key, { ...subscription, state: 'asked' })
    const answer = await this.ask('subscribe', subscription)
    if (answer === undefined) return // lost before the answer; asked again after the next `connect`
    const wanted = this.subscriptions.get(key)
    if (wanted?.state !== 'asked') return
    if ((answer as JsonObject).ok === true) this.want(key, { ...wanted, state: 'on' })
    else this.want(key, undefined)
  }

  async unsubscribe(key: string): Promise<void> {
    const wanted = this.subscriptions.get(key)
    this.want(key, undefined)
    if (!wanted || wanted.state === 'ended' || !this.socket?.connected) return
    await this.ask('unsubscribe', 'all' in wanted ? { all: true } : { job_id: wanted.job_id })
  }

  pause(): void {
    this.paused = true
    this.changed()
  }

  resume(): void {
    this.paused = false
    for (const entry of this.waiting.splice(0)) this.keep(entry)
    this.changed()
  }

  clear(): void {
    this.entries = []
    this.sizes = []
    this.waiting = []
    this.counts = new Map()
    this.size = this.dropped = this.invalid = 0
    this.changed()
  }

  // What the connection does

  private connected(socket: Socket): void {
    // Events of the last connection may be delivered just before `connect`, and may have closed this connection, too.
    if (!socket.connected) return
    this.record('own', 'connected', undefined, [])
    this.become({ kind: 'on', transport: socket.io.engine.transport.name })
    for (const wanted of [...this.subscriptions.values()]) {
      const { state, ...subscription } = wanted
      if (state !== 'ended') void this.subscribe(subscription)
    }
  }

  private disconnected(socket: Socket, reason: string): void {
    if (this.socket !== socket) return
    this.record('own', 'disconnected', reason, [])
    this.forgetSubscribed()
    // The library tries again by itself, unless the server closed the connection.
    if (socket.active) this.become({ kind: 'lost', attempts: 0 })
    else this.become({ kind: 'off', detail: 'The server closed the connection.' })
  }

  private notConnected(socket: Socket, error: Error & { data?: Json }): void {
    if (this.socket !== socket) return
    if (error.data === undefined) {
      if (this.state.kind === 'connecting') this.become({ kind: 'lost', attempts: 0 }) // the network has failed; the library tries again
      return
    }
    const payload = { message: error.message, data: error.data }
    this.record('in', 'connect_error', payload, this.schemas.violations('connect_error', payload))
    this.close()
    this.become({ kind: 'refused', detail: error.message })
  }

  private received(name: string, payloads: Json[]): void {
    const [payload] = payloads
    const more = payloads.length > 1 ? [{ pointer: '#', detail: 'The event carries more than one payload.' }] : []
    this.record('in', name, payload, [...this.schemas.violations(name, payload), ...more])
    const { job_id: jobId, first_seq: first, lines } = (payload ?? {}) as { job_id?: string; first_seq?: number; lines?: string[] }
    const wanted = jobId === undefined ? undefined : this.subscriptions.get(jobId)
    if (!wanted || 'all' in wanted) return
    if (name === 'log' && typeof first === 'number' && lines) this.want(wanted.job_id, { ...wanted, after_seq: first + lines.length - 1 })
    if (name === 'complete' || (name === 'error' && isGone(payload))) this.want(wanted.job_id, { ...wanted, state: 'ended' })
  }

  /** The server forgets what a connection that ended was subscribed to. */
  private forgetSubscribed(): void {
    for (const [key, wanted] of this.subscriptions) if (wanted.state === 'on') this.want(key, { ...wanted, state: 'asked' })
  }

  private async ask(name: string, payload: Json): Promise<Json | undefined> {
    const socket = this.socket
    if (!socket?.connected) return undefined
    this.record('out', name, payload, this.schemas.violations(name, payload))
    const answer = (await socket.emitWithAck(name, payload).catch(() => undefined)) as Json | undefined
    if (answer === undefined) return undefined
    const ack = `${name}_ack`
    this.record('in', ack, answer, this.schemas.violations(ack, answer))
    return answer
  }

  private close(): void {
    const socket = this.socket
    this.socket = undefined
    socket?.offAny()
    socket?.io.off()
    socket?.off()
    socket?.disconnect()
  }

  // The record

  private want(key: string, wanted: Wanted | undefined): void {
    this.subscriptions = new Map(this.subscriptions)
    if (wanted) this.subscriptions.set(key, wanted)
    else this.subscriptions.delete(key)
    this.changed()
  }

  private record(direction: Direction, name: string, payload: Json | undefined, violations: readonly Violation[]): void {
    const entry = { number: ++this.number, at: new Date(), direction, name, payload, violations }
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1)
    if (violations.length) this.invalid += 1
    if (this.paused) this.hold(entry)
    else this.keep(entry)
    this.changed()
  }

  private hold(entry: Entry): void {
    this.waiting.push(entry)
    if (this.waiting.length > MOST_ENTRIES) {
      this.waiting.shift()
      this.dropped += 1
    }
  }

  private keep(entry: Entry): void {
    const size = sizeOf(entry.payload)
    this.entries.push(entry)
    this.sizes.push(size)
    this.size += size
    let dropped = 0
    for (const oldest of this.sizes) {
      const left = this.entries.length - dropped
      if (left <= MOST_ENTRIES && (this.size <= MOST_SIZE || left === 1)) break
      this.size -= oldest
      dropped += 1
    }
    if (dropped === 0) return
    this.entries.splice(0, dropped)
    this.sizes.splice(0, dropped)
    this.dropped += dropped
  }

  private become(state: State): void {
    this.state = state
    this.changed()
  }

  /** Notifies the page, once for all changes before its next frame. */
  private changed(): void {
    if (this.due) return
    this.due = true
    queueFrame(() => {
      this.due = false
      this.view = this.makeView()
      for (const listener of this.listeners) listener()
    })
  }

  private makeView(): View {
    const { state, subscriptions, dropped, invalid, paused } = this
    return {
      state,
      subscriptions,
      dropped,
      invalid,
      paused,
      entries: [...this.entries],
      counts: new Map(this.counts),
      held: this.waiting.length,
    }
  }
}

export const keyOf = (subscription: Subscription): string => ('all' in subscription ? ALL : subscription.job_id)

/** Whether an error event says that the job was deleted, which ends the subscription. */
const isGone = (payload: Json | undefined): boolean =>
  (payload as { problem?: { type?: string } } | undefined)?.problem?.type === 'urn:runcast:problem:job-not-found'

/** In the next frame, or after a pause in a hidden tab, which gets no frames. */
function queueFrame(task: () => void): void {
  if (document.hidden) setTimeout(task, 100)
  else requestAnimationFrame(task)
}

function sizeOf(payload: Json | undefined): number {
  const lines = (payload as { lines?: unknown } | null | undefined)?.lines
  if (!Array.isArray(lines)) return 1000
  return lines.reduce((sum: number, line) => sum + String(line).length + 16, 0)
}
