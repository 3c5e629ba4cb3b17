// A typed client of the jobs, out of the contract alone: `openapi-typescript openapi/jobs.yaml -o jobs.ts` makes the types.
import type { components } from './jobs'

type Job = components['schemas']['Job']
type Problem = components['schemas']['Problem']
type Submission = components['schemas']['Submission']

export async function submit(server: string, token: string, submission: Submission): Promise<Job> {
  const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' }
  const answer = await fetch(`${server}/api/jobs/submit`, { method: 'POST', headers, body: JSON.stringify(submission) })
  if (!answer.ok) throw new Error(((await answer.json()) as Problem).detail)
  return (await answer.json()) as Job
}

const job = await submit('http://127.0.0.1:8000', 'TOKEN', { type: 'build', params: { config: 'release' } })
console.log(job.id, job.status, job.progress.percent ?? 0)
