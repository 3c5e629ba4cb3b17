/** What happened to a job and when: as a chart to scale, and in words. */
import type { Job, JobEvent, Status } from '../api'
import { duration, isActive, moment, useNow } from '../format'

export interface Phase {
  status: Extract<Status, 'pending' | 'running'>
  attempt: number
  from: number
  to: number
}

/** When the job waited and when it ran, oldest first. */
export function phasesOf(events: JobEvent[], end: number): Phase[] {
  return events.flatMap(({ status, at, attempt }, index) => {
    if (status !== 'pending' && status !== 'running') return []
    const next = events[index + 1]
    const from = Date.parse(at)
    return [{ status, attempt, from, to: Math.max(from, next ? Date.parse(next.at) : end) }]
  })
}

export function History({ job, events }: { job: Job; events: JobEvent[] }) {
  const now = useNow(isActive(job))
  // The last change is recorded after the job has ended, a moment after its command.
  const end = Math.max(job.ended_at ? Date.parse(job.ended_at) : now, ...events.map(({ at }) => Date.parse(at)))
  const phases = phasesOf(events, end)
  const start = phases[0]?.from ?? Date.parse(job.created_at)
  return (
    <section className="card history" aria-labelledby="history">
      <h2 id="history">History</h2>
      <Chart job={job} phases={phases} start={start} end={end} />
      <ol>
        {events.map((event, index) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: events are only added at the end
          <li key={index} data-status={event.status}>
            <span className="history-dot" aria-hidden="true" />
            <span>
              {event.status}
              {event.status === 'running' && event.attempt > 1 ? ` (attempt ${event.attempt})` : ''}
              <span className="muted history-cause">
                <bdi>{event.cause}</bdi>
              </span>
            </span>
            <time className="muted" dateTime={event.at} title={moment(event.at)}>
              {index === 0 ? moment(event.at).replace(/^.*,\s*/, '') : `+${duration(Date.parse(event.at) - start)}`}
            </time>
          </li>
        ))}
      </ol>
    </section>
  )
}

const HEIGHT = 54
const WIDTH = 300

/** One bar from submission to end, to scale. A phase that is too short to be seen is drawn as a line. */
function Chart({ job, phases, start, end }: { job: Job; phases: Phase[]; start: number; end: number }) {
  const total = Math.max(1, end - start)
  const x = (time: number) => ((time - start) / total) * WIDTH
  const waited = sum(phases.filter(({ status }) => status === 'pending'))
  const ran = sum(phases.filter(({ status }) => status === 'running'))
  const marks = [
    [job.ready_at, 'ready'],
    [job.cancel_requested_at, 'cancel requested'],
  ] as const
  return (
    <figure className="timing">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`Waited ${duration(waited)}, ran ${duration(ran)}.`}>
        <rect className="track" x="0" y="18" width={WIDTH} height="16" rx="4" />
        {phases.map((phase, index) => (
          <rect
            // biome-ignore lint/suspicious/noArrayIndexKey: phases are only added at the end
            key={index}
            className="phase"
            data-status={phase.status === 'running' && index === phases.length - 1 ? job.status : phase.status}
            x={x(phase.from)}
            y="18"
            width={Math.max(1.5, x(phase.to) - x(phase.from))}
            height="16"
            rx={Math.min(4, Math.max(0.7, (x(phase.to) - x(phase.from)) / 2))}
          >
            <title>{`${phase.status === 'pending' ? 'waited' : `ran, attempt ${phase.attempt}`}: ${duration(phase.to - phase.from)}`}</title>
          </rect>
        ))}
        {marks.map(
          ([at, name]) =>
            at && (
              <g key={name} className="moment" transform={`translate(${Math.min(WIDTH - 1, Math.max(1, x(Date.parse(at))))} 0)`}>
                <line y1="13" y2="38" />
                <text y="9" textAnchor={x(Date.parse(at)) > WIDTH / 2 ? 'end' : 'start'}>
                  {name}
                </text>
              </g>
            ),
        )}
        <text className="axis" x="0" y="49">
          0
        </text>
        <text className="axis" x={WIDTH} y="49" textAnchor="end">
          {duration(total)}
        </text>
      </svg>
      <figcaption className="muted">
        waited {duration(waited)}
        {ran > 0 && `, ${isActive(job) ? 'runs for' : 'ran'} ${duration(ran)}`}
      </figcaption>
    </figure>
  )
}

function sum(phases: Phase[]): number {
  return phases.reduce((total, { from, to }) => total + to - from, 0)
}
