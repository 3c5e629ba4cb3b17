/** One job: its status, its parameters, its history and its log. */
import { useState } from 'react'
import { answer, errorText, type Job, useApi, useCall } from '../api'
import { ago, detailOf, duration, isActive, isUp, moment, ranFor, reasonOf, titleOf, useNow, waitingOf } from '../format'
import { LogView } from '../log/LogView'
import { go, toJob, toJobs } from '../route'
import { Confirm } from '../shared/Confirm'
import { ProgressBar } from '../shared/ProgressBar'
import { StatusMark } from '../shared/StatusMark'
import { Facts } from './Facts'
import { History } from './History'
import { useJob } from './useJob'

export function JobPage({ id }: { id: string }) {
  const { job, connection, problem, changes, put, onPane } = useJob(id)
  const { value: history } = useCall(
    async api => (await answer(api.http.GET('/jobs/{job_id}/events', { params: { path: { job_id: id } } }))).events,
    `${id} ${changes}`,
  )
  if (!job) {
    return problem ? (
      <div className="card empty" role="alert">
        <p>{problem}</p>
        <p>
          <a href={toJobs()}>All jobs</a>
        </p>
      </div>
    ) : (
      <p className="quiet-note">Loading …</p>
    )
  }
  return (
    <div className="job-page">
      <Head job={job} onJob={put} />
      <div className="job-columns">
        <LogView job={job} connection={connection} problem={problem} onPane={onPane} />
        <aside className="job-side" aria-label="About the job">
          <History job={job} events={history ?? []} />
          <Facts job={job} />
        </aside>
      </div>
    </div>
  )
}

function Head({ job, onJob }: { job: Job; onJob(job: Job): void }) {
  const now = useNow(isActive(job))
  const ran = ranFor(job, now)
  const detail = detailOf(job)
  return (
    <div className="job-head">
      <a className="back" href={toJobs()}>
        Jobs
      </a>
      <div className="job-head-row">
        <h1>
          <span className="type">{job.type}</span> <bdi>{titleOf(job)}</bdi>
        </h1>
        <Actions job={job} onJob={onJob} />
      </div>
      {detail && (
        <p className="job-head-detail muted">
          <bdi>{detail}</bdi>
        </p>
      )}
      <div className="job-state">
        <span role="status">
          <StatusMark status={job.status} big />
        </span>
        <span className="muted">
          {job.status === 'pending' ? `${waitingOf(job)} · submitted ${ago(job.created_at, now)}` : null}
          {isUp(job) ? 'ready · ' : null}
          {job.status === 'running' && job.cancel_requested_at ? 'cancelling · ' : null}
          {reasonOf(job)}
          {reasonOf(job) && ran !== null ? ' · ' : ''}
          {ran === null ? '' : duration(ran)}
          {job.ended_at && (
            <time dateTime={job.ended_at} title={moment(job.ended_at)}>
              {' '}
              · ended {ago(job.ended_at, now)}
            </time>
          )}
        </span>
      </div>
      {job.status === 'running' && !isUp(job) && (
        <div className="job-progress">
          <ProgressBar progress={job.progress} label="Progress" />
          <span className="percent">{job.progress.percent === null ? '' : `${Math.floor(job.progress.percent)} %`}</span>
          <span className="muted job-progress-message">
            <bdi>{job.progress.message}</bdi>
          </span>
        </div>
      )}
      {job.error && (
        <p className="problem">
          <strong>{job.error.title}.</strong> {job.error.detail}
        </p>
      )}
    </div>
  )
}

type Asked = 'cancel' | 'force' | 'retry' | 'delete'

function Actions({ job, onJob }: { job: Job; onJob(job: Job): void }) {
  const api = useApi()
  const [asked, setAsked] = useState<Asked | null>(null)
  const [problem, setProblem] = useState<string | null>(null)
  const path = { job_id: job.id }
  if (!api.mayWrite) return null

  const acts: Record<Asked, () => Promise<void>> = {
    cancel: async () => onJob(await answer(api.http.POST('/jobs/{job_id}/cancel', { params: { path }, body: {} }))),
    force: async () => onJob(await answer(api.http.POST('/jobs/{job_id}/cancel', { params: { path }, body: { force: true } }))),
    retry: async () => go(toJob((await answer(api.http.POST('/jobs/{job_id}/retry', { params: { path } }))).id)),
    delete: async () => {
      await answer(api.http.DELETE('/jobs/{job_id}', { params: { path } }))
      go(toJobs())
    },
  }
  const act = (what: Asked) => {
    setProblem(null)
    acts[what]().catch(error => setProblem(errorText(error)))
  }
  const asking = asked && QUESTIONS[asked]
  return (
    <div className="actions">
      {isActive(job) ? (
        <button type="button" className="button" onClick={() => setAsked(job.cancel_requested_at ? 'force' : 'cancel')}>
          {job.cancel_requested_at ? 'Kill now' : 'Cancel'}
        </button>
      ) : (
        <button type="button" className="button" onClick={() => setAsked('retry')}>
          Retry
        </button>
      )}
      <button type="button" className="button danger" onClick={() => setAsked('delete')}>
        Delete
      </button>
      {problem && (
        <p className="problem" role="alert">
          {problem}
        </p>
      )}
      {asking && (
        <Confirm
          title={asking.title}
          action={asking.action}
          dismiss={asking.dismiss}
          danger={asking.danger}
          onConfirm={() => act(asked)}
          onClose={() => setAsked(null)}
        >
          <p className="muted">{asking.text(job)}</p>
        </Confirm>
      )}
    </div>
  )
}

const QUESTIONS: Record<Asked, { title: string; action: string; dismiss: string; danger: boolean; text(job: Job): string }> = {
  cancel: {
    title: 'Cancel this job?',
    action: 'Cancel the job',
    dismiss: 'Keep the job',
    danger: true,
    text: () => 'The job is asked to stop. If it does not stop in time, it is killed with all processes that it started.',
  },
  force: {
    title: 'Kill this job now?',
    action: 'Kill the job',
    dismiss: 'Keep the job',
    danger: true,
    text: () => 'The job was asked to stop before. It is killed now, with all processes that it started.',
  },
  retry: {
    title: 'Run this job again?',
    action: 'Run again',
    dismiss: 'Do not retry',
    danger: false,
    text: () => 'A new job is submitted with the same input. This one stays as it is.',
  },
  delete: {
    title: 'Delete this job and its log?',
    action: 'Delete',
    dismiss: 'Keep the job',
    danger: true,
    text: job => (isActive(job) ? 'The job is still active, so it is cancelled first. This cannot be undone.' : 'This cannot be undone.'),
  },
}
