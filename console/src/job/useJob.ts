/** One job as it is now, from the same watch that brings its log. */
import type { Connection } from '@runcast/client'
import { useEffect, useRef, useState } from 'react'
import { answer, isUnauthenticated, type Job, sayable, useApi } from '../api'
import { count } from '../format'
import type { Pane } from '../log/pane'

export interface Watched {
  job: Job | null
  connection: Connection
  /** Why nothing more will come. */
  problem: string | null
  /** Grows with each change of the status. */
  changes: number
}

const LOOK_AGAIN_MS = 1000
const START: Connection = { type: 'connection', state: 'connecting', behind: 0, reason: null }

/** Where the log is to be shown, once that is there. */
class Place {
  private found!: (pane: Pane) => void
  readonly pane = new Promise<Pane>(found => (this.found = found))
  readonly attach = (pane: Pane): void => this.found(pane)
}

export function useJob(id: string): Watched & { put(job: Job): void; onPane(pane: Pane): void } {
  const api = useApi()
  const [place] = useState(() => new Place())
  const [watched, setWatched] = useState<Watched>({ job: null, connection: START, problem: null, changes: 0 })
  const change = useRef((make: (watched: Watched) => Partial<Watched>) => setWatched(watched => ({ ...watched, ...make(watched) })))

  useEffect(() => {
    const leave = new AbortController()
    const set = change.current
    const read = async () => {
      const job = await answer(api.http.GET('/jobs/{job_id}', { params: { path: { job_id: id } }, signal: leave.signal }))
      set(({ changes }) => ({ job, changes: changes + 1 }))
    }
    let again: ReturnType<typeof setTimeout> | undefined
    const watch = async () => {
      await read()
      const pane = await place.pane // nothing is asked for before there is a place for it
      for await (const event of api.watchJob(id, { signal: leave.signal })) {
        switch (event.type) {
          case 'connection':
            set(() => ({ connection: event }))
            break
          case 'job':
            set(({ changes }) => ({ job: event.job, changes: changes + 1 }))
            break
          case 'log':
            await pane.add(event.first_seq, event.stream, event.lines)
            break
          case 'gap':
            pane.addNote(gapNote(event.first_seq, event.last_seq))
            break
          case 'progress':
            set(({ job }) => ({ job: job && { ...job, progress: { percent: event.percent, message: event.message } } }))
            // A result, or that it is ready, comes with progress; there is no event of its own for it.
            again ??= setTimeout(() => {
              again = undefined
              read().catch(() => {}) // what is wrong is told by the watch
            }, LOOK_AGAIN_MS)
            break
          case 'status':
          case 'end':
            await read()
            break
        }
      }
    }
    watch().catch(error => {
      if (leave.signal.aborted) return
      if (isUnauthenticated(error)) api.signOut(sayable(error))
      else set(() => ({ problem: sayable(error) }))
    })
    return () => {
      leave.abort()
      clearTimeout(again)
    }
  }, [api, id, place])

  return { ...watched, onPane: place.attach, put: job => change.current(({ changes }) => ({ job, changes: changes + 1 })) }
}

export function gapNote(first: number, last: number): string {
  const which = first === last ? `Line ${first}` : `Lines ${first} to ${last}`
  return `${which} (${count(last - first + 1, 'line')}) are gone: the log grew over the server's limit, which keeps its beginning and its end.`
}
