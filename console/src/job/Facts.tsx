import type { ReactNode } from 'react'
import type { Job } from '../api'
import { bytes, count, moment } from '../format'
import { toJob } from '../route'

/** The details of a job that no other part of the page shows. */
export function Facts({ job }: { job: Job }) {
  const url = job.result && typeof job.result.url === 'string' && /^https?:\/\//.test(job.result.url) ? job.result.url : null
  const facts: [string, ReactNode][] = [
    ['Id', <code key="id">{job.id}</code>],
    ['Submitted', `${moment(job.created_at)} by ${job.submitted_by}`],
    ...(job.retry_of
      ? [
          [
            'Retry of',
            <a key="of" href={toJob(job.retry_of)}>
              <code>{job.retry_of.slice(-8)}</code>
            </a>,
          ] as [string, ReactNode],
        ]
      : []),
    ...(job.project ? [['Project', job.project] as [string, ReactNode]] : []),
    ...(job.labels.length
      ? [
          [
            'Labels',
            <span key="labels" className="labels">
              {job.labels.map(label => (
                <span key={label} className="label">
                  {label}
                </span>
              ))}
            </span>,
          ] as [string, ReactNode],
        ]
      : []),
    ['Queue', job.priority === 0 ? job.queue : `${job.queue}, priority ${job.priority}`],
    ...(job.concurrency_key ? [['Concurrency key', job.concurrency_key] as [string, ReactNode]] : []),
    ...(job.max_attempts > 1 || job.attempt > 1 ? [['Attempt', `${job.attempt} of ${job.max_attempts}`] as [string, ReactNode]] : []),
    ...(job.timeout_seconds ? [['Timeout', count(job.timeout_seconds, 'second')] as [string, ReactNode]] : []),
    [
      'Events',
      <a key="events" href={`api/docs/events?job=${job.id}`}>
        Show in the event console
      </a>,
    ],
    [
      'Log',
      `${count(job.log.lines, 'line')}, ${bytes(job.log.bytes)}${job.log.dropped_lines ? `; ${count(job.log.dropped_lines, 'line')} dropped` : ''}`,
    ],
  ]
  return (
    <section className="card facts" aria-label="Details">
      {url && (
        <p className="result-link">
          <a href={url} rel="noreferrer noopener" target="_blank">
            Open {url}
          </a>
        </p>
      )}
      <dl>
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>
              <bdi>{value}</bdi>
            </dd>
          </div>
        ))}
      </dl>
      <Value name="Input" value={job.params} />
      {job.result && <Value name="Result" value={job.result} />}
    </section>
  )
}

function Value({ name, value }: { name: string; value: unknown }) {
  return (
    <details className="value">
      <summary>{name}</summary>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard */}
      <section className="json" tabIndex={0} aria-label={name}>
        <pre>{JSON.stringify(value, null, 2)}</pre>
      </section>
    </details>
  )
}
