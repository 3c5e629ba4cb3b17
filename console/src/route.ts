/** The view that is shown. It is the part of the address after `#`, so that the server serves one file. */
import { useSyncExternalStore } from 'react'

export type Route = { at: 'jobs'; filters: URLSearchParams } | { at: 'job'; id: string } | { at: 'new'; type: string | null }

export function useRoute(): Route {
  const hash = useSyncExternalStore(
    listener => {
      addEventListener('hashchange', listener)
      return () => removeEventListener('hashchange', listener)
    },
    () => location.hash,
  )
  return routeOf(hash)
}

export function routeOf(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#\/?/, '').split('?')
  const [first, second] = path.split('/')
  if (first === 'jobs' && second) return { at: 'job', id: decodeURIComponent(second) }
  if (first === 'new') return { at: 'new', type: second ? decodeURIComponent(second) : null }
  return { at: 'jobs', filters: new URLSearchParams(query) }
}

export const toJob = (id: string): string => `#/jobs/${id}`
export const toNew = (type?: string): string => (type ? `#/new/${encodeURIComponent(type)}` : '#/new')
export const toJobs = (filters?: URLSearchParams): string => (filters?.size ? `#/?${filters}` : '#/')

export function go(hash: string): void {
  location.hash = hash
}
