/** All jobs, newest first, as they are now. */
import { useState } from 'react'
import { type JobType, type Status, useApi } from '../api'
import { count } from '../format'
import { go, toJobs, toNew } from '../route'
import { JobRow } from './JobRow'
import { Overview } from './Overview'
import { type Filters, type Jobs, useJobs } from './useJobs'

const STATUSES: Status[] = ['running', 'pending', 'completed', 'failed', 'cancelled']
const TYPES: JobType[] = ['build', 'launch', 'create', 'task']
const PERIODS = [
  [0, 'Any time'],
  [1, 'Last hour'],
  [24, 'Last 24 hours'],
  [168, 'Last 7 days'],
] as const

export function JobsPage({ filters: given }: { filters: URLSearchParams }) {
  const api = useApi()
  const filters = filtersOf(given)
  const list = useJobs(filters)
  const filtered = given.size > 0
  return (
    <div className="jobs-page">
      <div className="page-head">
        <h1>Jobs</h1>
        <Live {...list.connection} />
        {api.mayWrite && (
          <a className="button primary" href={toNew()}>
            New job
          </a>
        )}
      </div>
      <Overview version={list.changes} />
      <FilterBar filters={filters} filtered={filtered} />
      {list.problem && (
        <p className="problem" role="alert">
          {list.problem}
        </p>
      )}
      <List list={list} filtered={filtered} />
    </div>
  )
}

function List({ list, filtered }: { list: Jobs; filtered: boolean }) {
  const { jobs } = list
  if (!jobs) return list.problem ? null : <p className="quiet-note">Loading …</p>
  if (jobs.length === 0) {
    return (
      <div className="card empty">
        <p>{filtered ? 'No jobs match the filters.' : 'No jobs yet.'}</p>
        <p className="muted">
          {filtered ? (
            <a href={toJobs()}>Show all jobs</a>
          ) : (
            'Submit a job here, from the command line or through the API. It appears here at once.'
          )}
        </p>
      </div>
    )
  }
  return (
    <>
      <ul className="card job-list" aria-label="Jobs">
        {jobs.map(job => (
          <JobRow key={job.id} job={job} />
        ))}
      </ul>
      <div className="list-end">
        <span className="muted" role="status">
          {count(jobs.length, 'job')}
          {list.more ? ', more available' : ''}
        </span>
        {list.more && (
          <button type="button" className="button" disabled={list.loading} onClick={list.loadMore}>
            {list.loading ? 'Loading …' : 'Show more'}
          </button>
        )}
      </div>
    </>
  )
}

/** Whether the list is up to date. */
export function Live({ state, reason }: Jobs['connection']) {
  const texts = { connecting: 'Connecting …', live: 'Live', lost: 'Connection lost' }
  return (
    <span className="live" data-state={state} role="status" title={reason ?? undefined}>
      <span className="dot" aria-hidden="true" />
      {texts[state]}
      {state === 'lost' && <span className="muted wide-only"> · reconnecting; this list may be out of date</span>}
    </span>
  )
}

function FilterBar({ filters, filtered }: { filters: Filters; filtered: boolean }) {
  const set = (change: Partial<Filters>) => go(toJobs(toQuery({ ...filters, ...change })))
  const toggle = (status: Status) =>
    set({ status: filters.status.includes(status) ? filters.status.filter(other => other !== status) : [...filters.status, status] })
  return (
    <search aria-label="Filter jobs">
      <form className="filters" onSubmit={event => event.preventDefault()}>
        <fieldset className="choices" aria-label="Status">
          {STATUSES.map(status => (
            <button
              key={status}
              type="button"
              className="button small"
              aria-pressed={filters.status.includes(status)}
              onClick={() => toggle(status)}
            >
              {status}
            </button>
          ))}
        </fieldset>
        <select
          className="field"
          aria-label="Type"
          value={filters.type[0] ?? ''}
          onChange={event => set({ type: event.target.value ? [event.target.value as JobType] : [] })}
        >
          <option value="">All types</option>
          {TYPES.map(type => (
            <option key={type}>{type}</option>
          ))}
        </select>
        <select
          className="field"
          aria-label="Submitted"
          value={filters.hours}
          onChange={event => set({ hours: Number(event.target.value) })}
        >
          {PERIODS.map(([hours, name]) => (
            <option key={hours} value={hours}>
              {name}
            </option>
          ))}
        </select>
        <TextFilter name="Project" pattern="[A-Za-z0-9_][A-Za-z0-9_.\-]*" value={filters.project} onText={project => set({ project })} />
        <TextFilter
          name="Labels"
          pattern="([A-Za-z0-9][A-Za-z0-9_.:\/=\-]*[\s,]*)*"
          value={filters.label}
          onText={label => set({ label })}
        />
        {filtered && (
          <a className="clear" href={toJobs()}>
            Clear filters
          </a>
        )}
      </form>
    </search>
  )
}

/** A text field that applies its value when the focus leaves it, or at Enter. */
function TextFilter({ name, pattern, value, onText }: { name: string; pattern: string; value: string; onText(text: string): void }) {
  const [draft, setDraft] = useState<string | null>(null)
  const done = (field: HTMLInputElement) => {
    if (!field.checkValidity()) return
    setDraft(null)
    if (field.value.trim() !== value) onText(field.value.trim())
  }
  return (
    <input
      className="field words"
      aria-label={name}
      placeholder={name}
      pattern={pattern}
      maxLength={100}
      value={draft ?? value}
      onChange={event => setDraft(event.target.value)}
      onBlur={event => done(event.currentTarget)}
      onKeyDown={event => event.key === 'Enter' && done(event.currentTarget)}
    />
  )
}

function filtersOf(given: URLSearchParams): Filters {
  return {
    status: given.getAll('status').filter((value): value is Status => STATUSES.includes(value as Status)),
    type: given.getAll('type').filter((value): value is JobType => TYPES.includes(value as JobType)),
    project: given.get('project') ?? '',
    label: given.get('label') ?? '',
    hours: Number(given.get('hours')) || 0,
  }
}

function toQuery({ status, type, project, label, hours }: Filters): URLSearchParams {
  const query = new URLSearchParams()
  for (const one of status) query.append('status', one)
  for (const one of type) query.append('type', one)
  if (project) query.set('project', project)
  if (label) query.set('label', label)
  if (hours) query.set('hours', String(hours))
  return query
}
