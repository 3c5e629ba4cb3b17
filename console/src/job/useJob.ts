/** One job as it is now, from the same watch that delivers its log. */
import type { Connection } from '@runcast/client'
import { useEffect, useRef, useState } from 'react'
import { answer, errorText, isUnauthenticated, type Job, useApi } from '../api'
import { count } from '../format'
import type { Pane } from '../log/pane'

export interface Watched {
  job: Job | null
  connection: Connection
  /** Why the watch has ended before the job. */
  problem: string | null
  /** Incremented with each change of the status. */
  changes: number
}

const READ_AGAIN_MS = 1000
const START: Connection = { type: 'connection', state: 'connecting', behind: 0, reason: null }

/** The pane of the log, once it is on the page. */
class PaneSlot {
  private found!: (pane: Pane) => void
  readonly pane = new Promise<Pane>(found => (this.found = found))
  readonly attach = (pane: Pane): void => this.found(pane)
}

export function useJob(id: string): Watched & { put(job: Job): void; onPane(pane: Pane): void } {
  const api = useApi()
  const [slot] = useState(() => new PaneSlot())
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
      const pane = await slot.pane // no lines are requested before there is a pane for them
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
            // A result or readiness is announced by progress only: neither has an event of its own.
            again ??= setTimeout(() => {
              again = undefined
              read().catch(() => {}) // the watch reports errors
            }, READ_AGAIN_MS)
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
      if (isUnauthenticated(error)) api.signOut(errorText(error))
      else set(() => ({ problem: errorText(error) }))
    })
    return () => {
      leave.abort()
      clearTimeout(again)
    }
  }, [api, id, slot])

  return { ...watched, onPane: slot.attach, put: job => change.current(({ changes }) => ({ job, changes: changes + 1 })) }
}

export function gapNote(first: number, last: number): string {
  const which = first === last ? `Line ${first}` : `Lines ${first} to ${last}`
  const verb = first === last ? 'was' : 'were'
  return `${which} (${count(last - first + 1, 'line')}) ${verb} dropped: the log exceeded the server's limit, which keeps the beginning and the end.`
}
