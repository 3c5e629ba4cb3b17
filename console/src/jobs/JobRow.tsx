import { memo } from 'react'
import type { Job } from '../api'
import { ago, detailOf, duration, isActive, isUp, moment, ranFor, reasonOf, titleOf, useNow, waitingOf } from '../format'
import { toJob } from '../route'
import { ProgressBar } from '../shared/ProgressBar'
import { StatusMark } from '../shared/StatusMark'

/** One job in the list. The whole row is a link to the job. */
export const JobRow = memo(function JobRow({ job }: { job: Job }) {
  const now = useNow(isActive(job))
  const ran = ranFor(job, now)
  const title = titleOf(job)
  return (
    <li className="job-row">
      <StatusMark status={job.status} />
      <div className="job-what">
        <a href={toJob(job.id)} className="job-title">
          <span className="type">{job.type}</span> <bdi>{title}</bdi>
        </a>
        <span className="job-detail muted">
          <bdi>{job.status === 'running' && job.progress.message && !isUp(job) ? job.progress.message : detailOf(job)}</bdi>
        </span>
      </div>
      <div className="job-labels">
        {job.labels.slice(0, 3).map(label => (
          <span key={label} className="label">
            {label}
          </span>
        ))}
      </div>
      <div className="job-how">
        {isUp(job) ? (
          <span className="muted">ready</span>
        ) : job.status === 'running' ? (
          <>
            <ProgressBar progress={job.progress} label={`Progress of ${job.type} ${title}`} />
            <span className="percent">{job.progress.percent === null ? '' : `${Math.floor(job.progress.percent)} %`}</span>
          </>
        ) : (
          <span className="muted">{job.status === 'pending' ? waitingOf(job) : reasonOf(job)}</span>
        )}
      </div>
      <div className="job-when muted">
        <span>{ran === null ? '–' : duration(ran)}</span>
        <time dateTime={job.created_at} title={moment(job.created_at)}>
          {ago(job.created_at, now)}
        </time>
      </div>
    </li>
  )
})
