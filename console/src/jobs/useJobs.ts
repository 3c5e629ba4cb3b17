/** The list of jobs, kept up to date: read again when a status changes; progress is applied as it arrives. */
import type { JobsEvent } from '@runcast/client'
import { useCallback, useEffect, useRef, useState } from 'react'
import { type Api, answer, errorText, isUnauthenticated, type Job, type JobType, type Status, useApi } from '../api'

export interface Filters {
  status: Status[]
  type: JobType[]
  project: string
  label: string
  hours: number
}

export interface Jobs {
  jobs: Job[] | null
  more: boolean
  loading: boolean
  problem: string | null
  /** Whether the list is kept up to date, and the reason when it is not. */
  connection: { state: 'connecting' | 'live' | 'lost'; reason: string | null }
  /** Incremented when the status of any job changes. */
  changes: number
  loadMore(): void
  refresh(): void
}

const PAGE = 50
const MOST_AT_ONCE = 200
const REPORT_INTERVAL_MS = 300

export function useJobs(filters: Filters): Jobs {
  const api = useApi()
  const key = JSON.stringify(filters)
  const [shown, setShown] = useState<{ key: string; jobs: Job[]; cursor: string | null } | null>(null)
  const [wanted, setWanted] = useState(PAGE)
  const [problem, setProblem] = useState<string | null>(null)
  const [loading, setLoading] = useState(true)
  const [changes, setChanges] = useState(0)
  const [connection, setConnection] = useState<Jobs['connection']>({ state: 'connecting', reason: null })
  const refresh = useCallback(() => setChanges(changes => changes + 1), [])

  // biome-ignore lint/correctness/useExhaustiveDependencies: runs when the filters change
  useEffect(() => setWanted(PAGE), [key])

  // biome-ignore lint/correctness/useExhaustiveDependencies: `changes` asks for the list again
  useEffect(() => {
    const asked = new AbortController()
    setLoading(true)
    read(api, JSON.parse(key) as Filters, wanted, asked.signal).then(
      page => {
        setShown({ key, ...page })
        setProblem(null)
        setLoading(false)
      },
      error => {
        if (asked.signal.aborted) return
        if (isUnauthenticated(error)) api.signOut(errorText(error))
        setProblem(errorText(error))
        setLoading(false)
      },
    )
    return () => asked.abort()
  }, [api, key, wanted, changes])

  useWatchedJobs(api, {
    onStatus: refresh,
    onConnection: setConnection,
    onProgress: useCallback(progress => {
      setShown(shown => {
        if (!shown) return shown
        const jobs = shown.jobs.map(job => {
          const news = progress.get(job.id)
          return news && job.status === 'running' ? { ...job, progress: { percent: news.percent, message: news.message } } : job
        })
        return { ...shown, jobs }
      })
    }, []),
  })

  return {
    jobs: shown?.key === key ? shown.jobs : null,
    more: shown?.key === key && shown.cursor !== null,
    loading,
    problem,
    connection,
    changes,
    loadMore: () => setWanted(wanted => wanted + PAGE),
    refresh,
  }
}

/** The newest jobs, as many as wanted, in as few calls as possible. */
async function read(api: Api, filters: Filters, wanted: number, signal: AbortSignal): Promise<{ jobs: Job[]; cursor: string | null }> {
  const jobs: Job[] = []
  let cursor: string | null = null
  do {
    const query = { ...queryOf(filters), limit: Math.min(wanted - jobs.length, MOST_AT_ONCE), ...(cursor && { cursor }) }
    const page: { jobs: Job[]; next_cursor: string | null } = await answer(api.http.GET('/jobs', { params: { query }, signal }))
    jobs.push(...page.jobs)
    cursor = page.next_cursor
  } while (cursor !== null && jobs.length < wanted)
  return { jobs, cursor }
}

function queryOf({ status, type, project, label, hours }: Filters) {
  const labels = label.split(/[\s,]+/).filter(Boolean)
  return {
    ...(status.length && { status }),
    ...(type.length && { type }),
    ...(project && { project }),
    ...(labels.length && { label: labels }),
    ...(hours && { since: new Date(Date.now() - hours * 3_600_000).toISOString() }),
  }
}

type Progress = Extract<JobsEvent, { type: 'progress' }>

/** Reports changes, at most about three times a second however many there are. */
function useWatchedJobs(
  api: Api,
  calls: { onStatus(): void; onProgress(news: Map<string, Progress>): void; onConnection(connection: Jobs['connection']): void },
): void {
  const latest = useRef(calls)
  latest.current = calls
  useEffect(() => {
    const leave = new AbortController()
    let progress = new Map<string, Progress>()
    let status = false
    let timer: ReturnType<typeof setTimeout> | undefined
    const tell = () => {
      timer = undefined
      if (progress.size) latest.current.onProgress(progress)
      if (status) latest.current.onStatus()
      progress = new Map()
      status = false
    }
    const watch = async () => {
      for await (const event of api.watchJobs({ signal: leave.signal })) {
        if (event.type === 'connection') {
          if (event.state !== 'catching-up') latest.current.onConnection({ state: event.state, reason: event.reason })
          // Changes while the connection was lost were not reported.
          if (event.state === 'live') status = true
        } else if (event.type === 'status') status = true
        else progress.set(event.job_id, event)
        timer ??= setTimeout(tell, REPORT_INTERVAL_MS)
      }
    }
    watch().catch(error => {
      if (isUnauthenticated(error)) api.signOut(errorText(error))
      else latest.current.onConnection({ state: 'lost', reason: errorText(error) })
    })
    return () => {
      leave.abort()
      clearTimeout(timer)
    }
  }, [api])
}
