/** The server as all parts of the page see it: the client, and who is asking. */
import { type components, createClient, type Problem, ProblemError, type Runcast } from '@runcast/client'
import { createContext, useContext, useEffect, useState } from 'react'

export type Job = components['schemas']['Job']
export type Status = components['schemas']['Status']
export type JobType = components['schemas']['JobType']
export type JobTypeInfo = components['schemas']['JobTypeInfo']
export type JobEvent = components['schemas']['JobEvent']
export type Stats = components['schemas']['Stats']
export type Worker = components['schemas']['Worker']
export type Whoami = components['schemas']['Whoami']

export interface Api extends Runcast {
  whoami: Whoami
  /** Whether the token may submit, cancel, retry and delete. */
  mayWrite: boolean
  /** The token is not accepted (any more), or the person wants to leave. */
  signOut(why?: string): void
}

const ApiContext = createContext<Api | null>(null)
export const ApiProvider = ApiContext.Provider

export function useApi(): Api {
  const api = useContext(ApiContext)
  if (!api) throw new Error('There is no server here.')
  return api
}

/** A client for the token and what the token may do. Throws ProblemError when it is refused, and TypeError when the server cannot be reached. */
export async function connect(baseUrl: string, token: string, signOut: Api['signOut']): Promise<Api> {
  const runcast = createClient({ baseUrl, token })
  const whoami = await answer(runcast.http.GET('/whoami'))
  return { ...runcast, whoami, mayWrite: whoami.scopes.some(scope => scope === 'admin' || scope === 'jobs:write'), signOut }
}

/** The data of an answer. Throws ProblemError. */
export async function answer<T>(call: Promise<{ data?: T; error?: Problem; response: Response }>): Promise<T> {
  const { data, error, response } = await call
  if (error !== undefined) throw new ProblemError(error)
  if (!response.ok) throw new Error(`The server answered ${response.status}.`)
  return data as T
}

/** What to say of an error to a person. */
export function sayable(error: unknown): string {
  if (error instanceof ProblemError) return error.message
  return error instanceof TypeError ? 'The server cannot be reached.' : String((error as Error).message ?? error)
}

export function isUnauthenticated(error: unknown): boolean {
  return error instanceof ProblemError && error.problem.type === 'urn:runcast:problem:unauthenticated'
}

/** The value of a call, read again whenever `version` changes; the last value stays while the next one is on its way. */
export function useCall<T>(call: (api: Api) => Promise<T>, version: string | number): { value: T | null; error: unknown } {
  const api = useApi()
  const [state, setState] = useState<{ value: T | null; error: unknown }>({ value: null, error: null })
  useEffect(() => {
    let over = false
    call(api).then(
      value => over || setState({ value, error: null }),
      error => {
        if (over) return
        if (isUnauthenticated(error)) api.signOut(sayable(error))
        else setState(({ value }) => ({ value, error }))
      },
    )
    return () => {
      over = true
    }
    // `call` is a new function each time; `version` says when it is another one.
  }, [api, version])
  return state
}
