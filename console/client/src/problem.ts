import type { components } from './generated/jobs.js'

export type Problem = components['schemas']['Problem']

/** What the server refused, and why. Branch on `problem.type`, show `message`. */
export class ProblemError extends Error {
  override readonly name = 'ProblemError'

  constructor(readonly problem: Problem) {
    super(problem.detail)
  }

  /** Whether the server, not the request, is at fault, so that the same again may succeed. */
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
