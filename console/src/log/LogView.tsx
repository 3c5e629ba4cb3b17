/** The log with its tools: search, errors, wrap, follow, download. */
import type { Connection } from '@runcast/client'
import { useEffect, useId, useRef, useState } from 'react'
import { errorText, type Job, useApi } from '../api'
import { bytes, isActive } from '../format'
import { Pane, type PaneState } from './pane'
import { MOST_MATCHES } from './search.ts'

const EMPTY: PaneState = { lines: 0, following: true, errorLines: 0, errorLine: 0, matches: 0, match: 0, searching: false, dropped: 0 }
const whole = (value: number) => value.toLocaleString('en')

interface LogViewProps {
  job: Job
  connection: Connection
  /** Why the watch has ended before the job. */
  problem: string | null
  /** Called once with the pane that shows the lines. */
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
    if (!host.current) return
    const made = new Pane(host.current, { label: 'Log', changed: setState })
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

  const search = (query: string) => {
    setQuery(query)
    pane.current?.find(query)
  }
  const toggleWrap = () => {
    setWrapped(!wrapped)
    pane.current?.wrap(!wrapped)
  }
  return (
    <section className="log card" aria-labelledby={heading}>
      <div className="log-tools">
        <h2 id={heading}>Log</h2>
        <search className="log-search" aria-label="Search the log">
          <input
            ref={field}
            className="field"
            type="search"
            placeholder="Search"
            aria-label="Search the log"
            aria-keyshortcuts="Control+F"
            spellCheck={false}
            value={query}
            onChange={event => search(event.target.value)}
            onKeyDown={event => {
              if (event.key === 'Enter') pane.current?.step(event.shiftKey ? -1 : 1)
              if (event.key === 'Escape') search('')
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
        </search>
        <div className="log-buttons">
          {state.errorLines > 0 && (
            <button type="button" className="button small" onClick={() => pane.current?.toNextError()}>
              {state.errorLine === 0 ? 'First error' : `Error ${whole(state.errorLine)} of ${whole(state.errorLines)}`}
            </button>
          )}
          <button type="button" className="button small" aria-pressed={wrapped} onClick={toggleWrap}>
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
      {state.dropped > 0 && (
        <p className="log-note">
          This page keeps the last {whole(state.lines)} lines; the first {whole(state.dropped)} are in the download.
        </p>
      )}
      <div ref={host} className="log-text" />
      <LogStatus job={job} connection={connection} problem={problem} lines={state.lines + state.dropped} />
    </section>
  )
}

function matchesOf({ matches, match, searching }: PaneState): string {
  if (matches === 0) return searching ? 'Searching …' : 'Not found'
  const all = matches >= MOST_MATCHES ? `more than ${whole(MOST_MATCHES)}` : whole(matches)
  return `${match ? `${whole(match)} of ` : ''}${all}${searching ? ' …' : ''}`
}

/** How complete the log is at this moment. */
function LogStatus({ job, connection, problem, lines }: { job: Job; connection: Connection; problem: string | null; lines: number }) {
  const [state, text] = statusText(job, connection, problem, lines)
  return (
    <p className="log-status" data-state={state}>
      {/* Screen readers announce each change of the state, but not each line. */}
      <span className="unseen" role="status">
        Log: {STATE_NAMES[state]}
      </span>
      <span className="dot" aria-hidden="true" />
      <span>{text}</span>
      <span className="muted log-size">
        {whole(job.log.lines > lines ? job.log.lines : lines)} lines · {bytes(job.log.bytes)}
      </span>
    </p>
  )
}

type LogState = 'connecting' | 'catching-up' | 'live' | 'lost' | 'ended'
const STATE_NAMES: Record<LogState, string> = {
  connecting: 'connecting',
  'catching-up': 'catching up',
  live: 'live',
  lost: 'connection lost, reconnecting',
  ended: 'complete',
}

function statusText(job: Job, { state, behind, reason }: Connection, problem: string | null, lines: number): [LogState, string] {
  if (problem) return ['lost', `The log stops here: ${problem}`]
  if (state === 'lost') return ['lost', `Connection lost (${reason}). Reconnecting. The log continues after the last line.`]
  if (state === 'connecting') return ['connecting', 'Connecting …']
  if (state === 'catching-up') {
    return [
      'catching-up',
      behind > 0 ? `Catching up: ${whole(Math.min(behind, Math.max(0, job.log.lines - lines)))} lines left` : 'Catching up …',
    ]
  }
  return isActive(job)
    ? ['live', job.status === 'pending' ? 'Live. The job has not started.' : 'Live']
    : ['ended', lines === 0 ? 'The job printed nothing.' : 'Complete']
}

/** The raw log. The request needs the token, so a link would not do. */
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
      setProblem(errorText(error))
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
