/** The client of a runcast server: typed HTTP calls, and live jobs that resume by themselves after a lost connection. */
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
  /**
   * Every call of `jobs.yaml`: `http.GET('/jobs/{job_id}', { params: { path: { job_id } } })` gives `{ data }`, or `{ error }`, which is a problem.
   */
  http: Client<paths>

  /**
   * Watch a job to its end: its log line by line after `afterSeq`, its progress, its changes of status, and how it ended. After a lost connection the
   * watch reconnects, for as long as it takes, and continues after the last line that came: no line is skipped or repeated. Ends after `end`.
   *
   * Throws ProblemError when the server refuses permanently: the token is wrong, or the job does not exist (any more).
   */
  watchJob(jobId: string, options?: WatchOptions): AsyncIterableIterator<WatchEvent, undefined>

  /**
   * Watch the status and the progress of all jobs, without an end. Changes during a lost connection are not reported: read the list of jobs at `live`.
   */
  watchJobs(options?: Pick<WatchOptions, 'signal'>): AsyncIterableIterator<JobsEvent, undefined>
}

/** A client of the server at `baseUrl`. It does not connect by itself. Each watch has its own connection, so that a slow reader delays no other. */
export function createClient(server: Server): Runcast {
  const { origin, path } = addressOf(server.baseUrl)
  return {
    http: createFetchClient<paths>({ baseUrl: `${origin}${path}/api`, headers: { Authorization: `Bearer ${server.token}` } }),
    watchJob: (jobId, options = {}) => new JobWatch(server, jobId, options),
    watchJobs: (options = {}) => new JobsWatch(server, options),
  }
}
