import type { components as EventTypes } from './generated/events.js'
import type { components } from './generated/jobs.js'
import { type LinkEvents, openLink, type Server, type SubscribePayload } from './link.js'
import { Mailbox } from './mailbox.js'
import { isTemporary, type Problem, ProblemError } from './problem.js'

export type Job = components['schemas']['Job']
type Payloads = EventTypes['schemas']

/**
 * The state of the watch, reported at each change.
 *
 * - `connecting`: nothing has come yet
 * - `catching-up`: connected, and `behind` lines that exist are still to come
 * - `live`: connected, and everything that exists has come
 * - `lost`: not connected, for `reason`; it reconnects by itself and continues after the last line seen
 */
export interface Connection {
  type: 'connection'
  state: 'connecting' | 'catching-up' | 'live' | 'lost'
  behind: number
  reason: string | null
}

/** The job at one moment: at the first connection, and after each reconnect. */
export interface Snapshot {
  type: 'job'
  job: Job
}

/** Consecutive lines of one stream; the first has the number `first_seq`. */
export type Lines = { type: 'log' } & Payloads['log_event']

/** Lines that no longer exist: the server's log cap dropped them. */
export interface Gap {
  type: 'gap'
  first_seq: number
  last_seq: number
}

export type ProgressChange = { type: 'progress' } & Payloads['progress_event']
export type StatusChange = { type: 'status' } & Payloads['status_event']
/** Why the job failed; its `end` follows. */
export type Failure = { type: 'error'; problem: Problem }
/** The job has ended; no other event of it follows. */
export type End = { type: 'end' } & Payloads['complete_event']

export type WatchEvent = Connection | Snapshot | Lines | Gap | ProgressChange | StatusChange | Failure | End
export type JobsEvent = Connection | ProgressChange | StatusChange

export interface WatchOptions {
  /** The number of the last line that is known already; the log begins after it. 0 when absent: the whole log. */
  afterSeq?: number
  /** Ends the watch. */
  signal?: AbortSignal
}

const FIRST_PAUSE_MS = 250
const LONGEST_PAUSE_MS = 5_000
/** When this much waits for a slow reader, the connection is closed, and opened again once the reader has taken all of it. */
const MOST_WAITING_CHARACTERS = 16_000_000
/** Added to the characters of each line: what a line costs by itself. */
const LINE_COSTS = 16

/** What both kinds of watch share: a link that is opened again whenever it is lost, and a mailbox. */
abstract class Watch<E> implements AsyncIterableIterator<E, undefined> {
  private readonly mailbox = new Mailbox<E | Connection>(() => this.emptied())
  private close: (() => void) | null = null
  private timer: ReturnType<typeof setTimeout> | undefined
  private failures = 0
  private begun = false
  private resting = false
  private over = false
  private connection: Connection = { type: 'connection', state: 'connecting', behind: 0, reason: null }

  constructor(
    private readonly server: Server,
    private readonly signal: AbortSignal | undefined,
  ) {}

  protected abstract subscription(): SubscribePayload
  protected abstract events(): Omit<LinkEvents, 'refused' | 'lost'>

  [Symbol.asyncIterator](): this {
    return this
  }

  next(): Promise<IteratorResult<E, undefined>> {
    if (!this.begun) this.begin()
    return this.mailbox.next() as Promise<IteratorResult<E, undefined>>
  }

  return(): Promise<IteratorResult<E, undefined>> {
    this.stop()
    this.mailbox.abandon()
    return Promise.resolve({ done: true, value: undefined })
  }

  protected put(event: E, weight = 0): void {
    this.mailbox.put(event, weight)
    if (this.mailbox.weight > MOST_WAITING_CHARACTERS) this.rest()
  }

  /** Reports the state of the watch, if it has changed. */
  protected tell(state: Connection['state'], { behind = 0, reason = null }: { behind?: number; reason?: string | null } = {}): void {
    if (this.over || (this.resting && state === 'live')) return
    if (this.connection.state === state && this.connection.reason === reason) return
    this.connection = { type: 'connection', state, behind, reason }
    this.mailbox.put(this.connection)
  }

  protected get state(): Connection['state'] {
    return this.connection.state
  }

  protected finish(): void {
    this.stop()
    this.mailbox.end()
  }

  protected fail(problem: Problem): void {
    this.stop()
    this.mailbox.fail(new ProblemError(problem))
  }

  /** Connect again after the subscription has ended unexpectedly. */
  protected again(reason: string): void {
    if (this.over) return
    this.close?.()
    this.close = null
    this.tell('lost', { reason })
    const pause = Math.min(FIRST_PAUSE_MS * 2 ** this.failures, LONGEST_PAUSE_MS)
    this.failures += 1
    // A random part, so that not all clients reconnect at the same moment when a server comes back.
    this.timer = setTimeout(() => this.connect(), pause * (0.5 + Math.random() / 2))
  }

  private begin(): void {
    this.begun = true
    if (this.over) return
    if (this.signal?.aborted) {
      this.finish()
      return
    }
    this.signal?.addEventListener('abort', this.aborted)
    this.mailbox.put(this.connection)
    this.connect()
  }

  private connect(): void {
    const events = this.events()
    this.close = openLink(this.server, this.subscription(), {
      ...events,
      subscribed: answer => {
        this.failures = 0
        events.subscribed(answer)
      },
      refused: problem => (isTemporary(problem) ? this.again(problem.detail) : this.fail(problem)),
      lost: reason => this.again(reason),
    })
  }

  /** Stop receiving, because the reader is slow. The server keeps the rest. */
  private rest(): void {
    if (this.over || this.resting) return
    this.resting = true
    this.close?.()
    this.close = null
    this.tell('catching-up')
  }

  private emptied(): void {
    if (!this.resting || this.over) return
    this.resting = false
    this.connect()
  }

  private readonly aborted = (): void => {
    this.stop()
    this.mailbox.abandon()
  }

  private stop(): void {
    this.over = true
    this.begun = true
    this.signal?.removeEventListener('abort', this.aborted)
    clearTimeout(this.timer)
    this.close?.()
    this.close = null
  }
}

/** One job: every line after `afterSeq` once and in order, and every other event, up to its end. */
export class JobWatch extends Watch<WatchEvent> {
  private seen: number
  /** The number of the last line that existed when the link was opened. */
  private there = 0
  private status: Job['status'] | null = null

  constructor(
    server: Server,
    private readonly jobId: string,
    { afterSeq = 0, signal }: WatchOptions,
  ) {
    super(server, signal)
    this.seen = afterSeq
  }

  protected override subscription(): SubscribePayload {
    return { job_id: this.jobId, after_seq: this.seen }
  }

  protected override events(): Omit<LinkEvents, 'refused' | 'lost'> {
    return {
      subscribed: answer => {
        if (!('job' in answer)) return
        this.there = answer.job.log.lines
        this.status = answer.job.status
        this.put({ type: 'job', job: answer.job })
        const behind = this.there - this.seen
        if (behind > 0) this.tell('catching-up', { behind })
        else this.tell('live')
      },
      log: payload => this.add(payload),
      progress: payload => this.put({ type: 'progress', ...payload }),
      status: payload => this.change(payload),
      complete: payload => this.end(payload),
      error: ({ problem }) => this.trouble(problem),
    }
  }

  private add(payload: Payloads['log_event']): void {
    const { first_seq, lines } = payload
    const known = this.seen + 1 - first_seq
    if (known >= lines.length) return
    this.skipTo(first_seq)
    const fresh = known > 0 ? { ...payload, first_seq: this.seen + 1, lines: lines.slice(known) } : payload
    this.seen = first_seq + lines.length - 1
    this.put(
      { type: 'log', ...fresh },
      fresh.lines.reduce((sum, line) => sum + line.length + LINE_COSTS, 0),
    )
    if (this.state === 'catching-up' && this.seen >= this.there) this.tell('live')
  }

  /** The server omits lines only where its log cap has dropped them. */
  private skipTo(first_seq: number): void {
    if (first_seq > this.seen + 1) this.put({ type: 'gap', first_seq: this.seen + 1, last_seq: first_seq - 1 })
  }

  private change(payload: Payloads['status_event']): void {
    // A change during the subscription is in the snapshot already, and may be reported once more.
    if (payload.status === this.status || isFinal(this.status)) return
    this.status = payload.status
    this.put({ type: 'status', ...payload })
  }

  private end(payload: Payloads['complete_event']): void {
    this.skipTo(payload.log_lines + 1)
    this.put({ type: 'end', ...payload })
    this.finish()
  }

  private trouble(problem: Problem): void {
    if (problem.type === 'urn:runcast:problem:job-failed') this.put({ type: 'error', problem })
    else if (isTemporary(problem)) this.again(problem.detail)
    else this.fail(problem)
  }
}

/** All jobs: every change of a status, and progress, while connected. Changes during a lost connection are not reported: read the list at `live`. */
export class JobsWatch extends Watch<JobsEvent> {
  constructor(server: Server, { signal }: Pick<WatchOptions, 'signal'>) {
    super(server, signal)
  }

  protected override subscription(): SubscribePayload {
    return { all: true }
  }

  protected override events(): Omit<LinkEvents, 'refused' | 'lost'> {
    return {
      subscribed: () => this.tell('live'),
      progress: payload => this.put({ type: 'progress', ...payload }),
      status: payload => this.put({ type: 'status', ...payload }),
    }
  }
}

export function isFinal(status: Job['status'] | null): boolean {
  return status === 'completed' || status === 'failed' || status === 'cancelled'
}
