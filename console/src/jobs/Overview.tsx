/** Queue and workers in one line, and a table of the workers on request. */
import { useEffect, useState } from 'react'
import { answer, type Stats, useCall, type Worker } from '../api'
import { ago, count, duration, useNow } from '../format'

const READ_INTERVAL_MS = 5000

export function Overview({ version }: { version: number }) {
  const tick = useTick()
  const { value } = useCall(async api => {
    const [stats, { workers }] = await Promise.all([answer(api.http.GET('/stats')), answer(api.http.GET('/workers'))])
    return { stats, workers }
  }, `${version} ${tick}`)
  if (!value) return <div className="overview card" aria-busy="true" />
  return <Details {...value} />
}

function Details({ stats, workers }: { stats: Stats; workers: Worker[] }) {
  const alive = workers.filter(worker => worker.alive)
  const slots = sum(alive.map(worker => worker.slots))
  const busy = sum(alive.map(worker => worker.busy_slots))
  return (
    <details className="overview card">
      <summary>
        <Figure name="running" value={stats.by_status.running} />
        <Figure
          name="waiting"
          value={stats.queue_depth}
          about={stats.oldest_pending_seconds === null ? null : `oldest ${duration(stats.oldest_pending_seconds * 1000)}`}
        />
        <Figure name={busy === 1 ? 'slot busy' : 'slots busy'} value={`${busy} of ${slots}`} meter={slots ? busy / slots : 0} />
        <Figure
          name={alive.length === 1 ? 'worker' : 'workers'}
          value={alive.length}
          warn={alive.length === 0}
          about={alive.length === 0 ? 'jobs wait until a worker starts' : null}
        />
        <span className="overview-more">Workers</span>
      </summary>
      <Workers workers={workers} />
    </details>
  )
}

function Figure(props: { name: string; value: number | string; about?: string | null; meter?: number; warn?: boolean }) {
  return (
    <span className={props.warn ? 'figure warn' : 'figure'}>
      <strong>{props.value}</strong> {props.name}
      {props.meter !== undefined && (
        <span className="meter" aria-hidden="true">
          <span style={{ width: `${props.meter * 100}%` }} />
        </span>
      )}
      {props.about && <span className="muted"> · {props.about}</span>}
    </span>
  )
}

function Workers({ workers }: { workers: Worker[] }) {
  const now = useNow()
  if (workers.length === 0)
    return (
      <p className="muted workers-none">
        No worker has registered. Start one with <code>runcast worker</code>.
      </p>
    )
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard
    <section className="table-scroll" tabIndex={0} aria-label="Workers">
      <table className="workers">
        <thead>
          <tr>
            <th scope="col">Worker</th>
            <th scope="col">Slots</th>
            <th scope="col">Queues</th>
            <th scope="col">Last seen</th>
            <th scope="col">Uptime</th>
          </tr>
        </thead>
        <tbody>
          {workers.map(worker => (
            <tr key={worker.id} data-alive={worker.alive}>
              <th scope="row">
                <span className="dot" aria-hidden="true" /> {worker.host}{' '}
                <span className="muted">{worker.alive ? `pid ${worker.pid}` : 'lost'}</span>
              </th>
              <td>
                {worker.busy_slots} of {worker.slots}
              </td>
              <td>{worker.queues.join(', ')}</td>
              <td>{ago(worker.heartbeat_at, now)}</td>
              <td>{worker.alive ? duration(now - Date.parse(worker.started_at)) : '–'}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <p className="unseen">{count(workers.length, 'worker')}</p>
    </section>
  )
}

function sum(values: number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

/** A number that changes every few seconds while the page is in sight. */
function useTick(): number {
  const [tick, setTick] = useState(0)
  useEffect(() => {
    const timer = setInterval(() => document.hidden || setTick(tick => tick + 1), READ_INTERVAL_MS)
    return () => clearInterval(timer)
  }, [])
  return tick
}
