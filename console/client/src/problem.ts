import type { components } from './generated/jobs.js'

export type Problem = components['schemas']['Problem']

/** The server refused a request. Branch on `problem.type`, show `message`. */
export class ProblemError extends Error {
  override readonly name = 'ProblemError'

  constructor(readonly problem: Problem) {
    super(problem.detail)
  }

  /** Whether the cause is the state of the server, not the request, so that the same request may succeed later. */
  get isTemporary(): boolean {
    return isTemporary(this.problem)
  }
}

export function isTemporary({ status }: Problem): boolean {
  return status >= 500 || status === 429
}

export function isProblem(value: unknown): value is Problem {
  return typeof value === 'object' && value !== null && 'type' in value && 'detail' in value && 'status' in value
}
