/** The client of a runcast server: all calls by their types, and live jobs that are resumed by themselves. */
import createFetchClient, { type Client } from 'openapi-fetch'
import type { paths } from './generated/jobs.js'
import { addressOf, type Server } from './link.js'
import { type JobsEvent, JobsWatch, JobWatch, type WatchEvent, type WatchOptions } from './watch.js'

export type { Auth, ClientToServerEvents, components as EventComponents, ServerToClientEvents } from './generated/events.js'
export type { components, operations, paths } from './generated/jobs.js'
export type { Server } from './link.js'
export { isTemporary, type Problem, ProblemError } from './problem.js'
export {
  type Connection,
  type End,
  type Failure,
  type Gap,
  isFinal,
  type Job,
  type JobsEvent,
  type Lines,
  type ProgressChange,
  type Snapshot,
  type StatusChange,
  type WatchEvent,
  type WatchOptions,
} from './watch.js'

export interface Runcast {
  /** Every call of `jobs.yaml`: `http.GET('/jobs/{job_id}', { params: { path: { job_id } } })` gives `{ data }` or `{ error }`, which is a problem. */
  http: Client<paths>

  /**
   * Watch a job to its end: its log line by line from `afterSeq`, its progress, its changes of status, how it ended. A connection that is lost is made
   * again for as long as it takes, and the log goes on after the last line that came: nothing is skipped or repeated. Ends after `end`.
   *
   * Throws ProblemError when the server refuses for good: the token is wrong, or there is no such job (any more).
   */
  watchJob(jobId: string, options?: WatchOptions): AsyncIterableIterator<WatchEvent, undefined>

  /** Watch the status and the progress of all jobs, without an end. Changes that happen while the connection is lost are not told: read the list at `live`. */
  watchJobs(options?: Pick<WatchOptions, 'signal'>): AsyncIterableIterator<JobsEvent, undefined>
}

/** A client of the server at `baseUrl`. Connects to nothing by itself: each watch has a connection of its own, so that a slow reader holds up no other. */
export function createClient(server: Server): Runcast {
  const { origin, path } = addressOf(server.baseUrl)
  return {
    http: createFetchClient<paths>({ baseUrl: `${origin}${path}/api`, headers: { Authorization: `Bearer ${server.token}` } }),
    watchJob: (jobId, options = {}) => new JobWatch(server, jobId, options),
    watchJobs: (options = {}) => new JobsWatch(server, options),
  }
}
