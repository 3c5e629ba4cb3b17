/** The server as all parts of the page see it: the client, and what the token may do. */
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
  /** Forget the token: it is not accepted any more, or the user signs out. */
  signOut(why?: string): void
}

const ApiContext = createContext<Api | null>(null)
export const ApiProvider = ApiContext.Provider

export function useApi(): Api {
  const api = useContext(ApiContext)
  if (!api) throw new Error('useApi needs an ApiProvider around it.')
  return api
}

/** A client for the token, and what the token may do. Throws ProblemError when it is refused, TypeError when the server cannot be reached. */
export async function connect(baseUrl: string, token: string, signOut: Api['signOut']): Promise<Api> {
  const runcast = createClient({ baseUrl, token })
  const whoami = await answer(runcast.http.GET('/whoami'))
  return { ...runcast, whoami, mayWrite: whoami.scopes.some(scope => scope === 'admin' || scope === 'jobs:write'), signOut }
}

/** The data of a response. Throws ProblemError. */
export async function answer<T>(call: Promise<{ data?: T; error?: Problem; response: Response }>): Promise<T> {
  const { data, error, response } = await call
  if (error !== undefined) throw new ProblemError(error)
  if (!response.ok) throw new Error(`The server answered ${response.status}.`)
  return data as T
}

/** The message to show for an error. */
export function errorText(error: unknown): string {
  if (error instanceof ProblemError) return error.message
  return error instanceof TypeError ? 'The server cannot be reached.' : String((error as Error).message ?? error)
}

export function isUnauthenticated(error: unknown): boolean {
  return error instanceof ProblemError && error.problem.type === 'urn:runcast:problem:unauthenticated'
}

/** The value of a call, read again whenever `version` changes. The last value stays until the next one has arrived. */
export function useCall<T>(call: (api: Api) => Promise<T>, version: string | number): { value: T | null; error: unknown } {
  const api = useApi()
  const [state, setState] = useState<{ value: T | null; error: unknown }>({ value: null, error: null })
  // biome-ignore lint/correctness/useExhaustiveDependencies: `call` is a new function each time; `version` tells when it is another call
  useEffect(() => {
    let outdated = false
    call(api).then(
      value => outdated || setState({ value, error: null }),
      error => {
        if (outdated) return
        if (isUnauthenticated(error)) api.signOut(errorText(error))
        else setState(({ value }) => ({ value, error }))
      },
    )
    return () => {
      outdated = true
    }
  }, [api, version])
  return state
}
