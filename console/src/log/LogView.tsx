/** The log with its tools: search, errors, follow, wrap, download. */
import type { Connection } from '@runcast/client'
import { useEffect, useId, useRef, useState } from 'react'
import { type Job, sayable, useApi } from '../api'
import { bytes, isActive } from '../format'
import { Pane, type PaneState } from './pane'
import { MOST_MATCHES } from './search.ts'

const EMPTY: PaneState = { lines: 0, following: true, troubles: 0, trouble: 0, matches: 0, match: 0, searching: false, forgotten: 0 }
const whole = (value: number) => value.toLocaleString('en')

interface LogViewProps {
  job: Job
  connection: Connection
  /** Why nothing more will come. */
  problem: string | null
  /** Called once with the place for the lines. */
  onPane(pane: Pane): void
}

export function LogView({ job, connection, problem, onPane }: LogViewProps) {
  const pane = useRef<Pane | null>(null)
  const host = useRef<HTMLDivElement>(null)
  const field = useRef<HTMLInputElement>(null)
  const [state, setState] = useState(EMPTY)
  const [query, setQuery] = useState('')
  const [wrapped, setWrapped] = useState(false)
  const heading = useId()

  useEffect(() => {
    const made = new Pane(host.current!, { label: 'Log', changed: setState })
    pane.current = made
    onPane(made)
    return () => {
      pane.current = null
      made.destroy()
    }
  }, [onPane])

  useEffect(() => {
    const find = (event: KeyboardEvent) => {
      if ((event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey && event.key === 'f') {
        event.preventDefault()
        field.current?.focus()
        field.current?.select()
      }
    }
    addEventListener('keydown', find)
    return () => removeEventListener('keydown', find)
  }, [])

  const look = (words: string) => {
    setQuery(words)
    pane.current?.find(words)
  }
  return (
    <section className="log card" aria-labelledby={heading}>
      <div className="log-tools">
        <h2 id={heading}>Log</h2>
        <div className="log-search" role="search" aria-label="Search the log">
          <input
            ref={field}
            className="field"
            type="search"
            placeholder="Search"
            aria-label="Search the log"
            aria-keyshortcuts="Control+F"
            spellCheck={false}
            value={query}
            onChange={event => look(event.target.value)}
            onKeyDown={event => {
              if (event.key === 'Enter') pane.current?.step(event.shiftKey ? -1 : 1)
              if (event.key === 'Escape') look('')
            }}
          />
          <button
            type="button"
            className="icon-button"
            aria-label="Previous match"
            disabled={!state.matches}
            onClick={() => pane.current?.step(-1)}
          >
            <Chevron up />
          </button>
          <button
            type="button"
            className="icon-button"
            aria-label="Next match"
            disabled={!state.matches}
            onClick={() => pane.current?.step(1)}
          >
            <Chevron />
          </button>
          <span className="matches muted" role="status">
            {query && matchesOf(state)}
          </span>
        </div>
        <div className="log-buttons">
          {state.troubles > 0 && (
            <button type="button" className="button small" onClick={() => pane.current?.toTrouble()}>
              {state.trouble === 0 ? 'First error' : `Error ${whole(state.trouble)} of ${whole(state.troubles)}`}
            </button>
          )}
          <button
            type="button"
            className="button small"
            aria-pressed={wrapped}
            onClick={() => (setWrapped(!wrapped), pane.current?.wrap(!wrapped))}
          >
            Wrap
          </button>
          <button
            type="button"
            className="button small"
            aria-pressed={state.following}
            onClick={() => pane.current?.follow(!state.following)}
          >
            Follow
          </button>
          <Download job={job} />
        </div>
      </div>
      {state.forgotten > 0 && (
        <p className="log-note">
          This page keeps the last {whole(state.lines)} lines; the first {whole(state.forgotten)} are in the download.
        </p>
      )}
      <div ref={host} className="log-text" />
      <LogStatus job={job} connection={connection} problem={problem} lines={state.lines + state.forgotten} />
    </section>
  )
}

function matchesOf({ matches, match, searching }: PaneState): string {
  if (matches === 0) return searching ? 'Searching …' : 'Not found'
  const all = matches >= MOST_MATCHES ? `more than ${whole(MOST_MATCHES)}` : whole(matches)
  return `${match ? `${whole(match)} of ` : ''}${all}${searching ? ' …' : ''}`
}

/** What can be said of how complete the log is at this moment; nothing is glossed over. */
function LogStatus({ job, connection, problem, lines }: { job: Job; connection: Connection; problem: string | null; lines: number }) {
  const [state, words] = wordsOf(job, connection, problem, lines)
  return (
    <p className="log-status" data-state={state}>
      {/* Told to who listens at each change, and not with each line. */}
      <span className="unseen" role="status">
        Log: {TOLD[state]}
      </span>
      <span className="dot" aria-hidden="true" />
      <span>{words}</span>
      <span className="muted log-size">
        {whole(job.log.lines > lines ? job.log.lines : lines)} lines · {bytes(job.log.bytes)}
      </span>
    </p>
  )
}

type LogState = 'connecting' | 'catching-up' | 'live' | 'lost' | 'ended'
const TOLD: Record<LogState, string> = {
  connecting: 'connecting',
  'catching-up': 'catching up',
  live: 'live',
  lost: 'connection lost, trying again',
  ended: 'complete',
}

function wordsOf(job: Job, { state, behind, reason }: Connection, problem: string | null, lines: number): [LogState, string] {
  if (problem) return ['lost', `Nothing more will come: ${problem}`]
  if (state === 'lost') return ['lost', `Connection lost (${reason}). Trying again; the log goes on where it stopped.`]
  if (state === 'connecting') return ['connecting', 'Connecting …']
  if (state === 'catching-up') {
    return [
      'catching-up',
      behind > 0 ? `Catching up: ${whole(Math.min(behind, Math.max(0, job.log.lines - lines)))} lines to come` : 'Catching up …',
    ]
  }
  return isActive(job)
    ? ['live', job.status === 'pending' ? 'Live. The job has not started.' : 'Live']
    : ['ended', lines === 0 ? 'The job printed nothing.' : 'Complete']
}

/** The raw log. It needs the token, so it is fetched, and not just linked to. */
function Download({ job }: { job: Job }) {
  const api = useApi()
  const [busy, setBusy] = useState(false)
  const [problem, setProblem] = useState<string | null>(null)
  const save = async () => {
    setBusy(true)
    setProblem(null)
    try {
      const { data, error } = await api.http.GET('/jobs/{job_id}/log', {
        params: { path: { job_id: job.id } },
        headers: { Accept: 'text/plain' },
        parseAs: 'blob',
      })
      if (error) throw new Error(error.detail)
      const address = URL.createObjectURL(data as unknown as Blob)
      const link = document.createElement('a')
      link.href = address
      link.download = `${job.id}.log`
      link.click()
      setTimeout(() => URL.revokeObjectURL(address), 10_000)
    } catch (error) {
      setProblem(sayable(error))
    } finally {
      setBusy(false)
    }
  }
  return (
    <button
      type="button"
      className="button small"
      disabled={busy}
      title={problem ?? 'The raw log, byte for byte'}
      onClick={() => void save()}
    >
      {busy ? 'Downloading …' : problem ? 'Download failed' : 'Download'}
    </button>
  )
}

function Chevron({ up = false }: { up?: boolean }) {
  return (
    <svg viewBox="0 0 20 20" aria-hidden="true">
      <path d={up ? 'm5 12.5 5-5 5 5' : 'm5 7.5 5 5 5-5'} />
    </svg>
  )
}
