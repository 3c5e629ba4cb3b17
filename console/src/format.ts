/** Times, durations and jobs in words. */
import { useEffect, useState } from 'react'
import type { Job } from './api'

export function duration(milliseconds: number): string {
  const seconds = Math.max(0, milliseconds) / 1000
  if (seconds < 0.95) return `${Math.round(seconds * 1000)} ms`
  if (seconds < 10) return `${seconds.toFixed(1)} s`
  if (seconds < 60) return `${Math.floor(seconds)} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3600)} h`
}

export function ago(time: string, now: number): string {
  const seconds = (now - Date.parse(time)) / 1000
  if (seconds < 5) return 'now'
  if (seconds < 60) return `${Math.floor(seconds)} s ago`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`
  return new Date(time).toLocaleDateString(undefined, { day: 'numeric', month: 'short' })
}

export function moment(time: string): string {
  return new Date(time).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'medium' })
}

export function count(value: number, one: string, many = `${one}s`): string {
  return `${value.toLocaleString('en')} ${value === 1 ? one : many}`
}

export function bytes(value: number): string {
  if (value < 1000) return `${value} B`
  if (value < 1_000_000) return `${(value / 1000).toFixed(1)} kB`
  return `${(value / 1_000_000).toFixed(1)} MB`
}

/** The main parameter of a job: what is built, launched, created or run. */
export function titleOf({ type, params }: Pick<Job, 'type' | 'params'>): string {
  const given = params as Record<string, unknown>
  const named = { build: given.project ?? 'whole workspace', launch: given.app, create: given.name, task: given.task }[type]
  return String(named ?? type)
}

/** The other parameters of a job. */
export function detailOf({ type, params }: Pick<Job, 'type' | 'params'>): string {
  const given = params as Record<string, unknown>
  const rest: Record<string, unknown> = type === 'task' ? ((given.inputs as Record<string, unknown>) ?? {}) : given
  const said = { build: 'project', launch: 'app', create: 'name', task: 'task' }[type]
  return Object.entries(rest)
    .filter(([name]) => type === 'task' || name !== said)
    .map(([name, value]) => `${name} ${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .join(' · ')
}

const REASONS: Record<NonNullable<Job['reason']>, string> = {
  exit_code: 'exit code',
  signal: 'ended by a signal',
  timeout: 'timed out',
  start_error: 'could not start',
  worker_lost: 'worker lost',
  cancelled_by_client: 'cancelled by a client',
  server_shutdown: 'server stopped',
}

export function reasonOf(job: Pick<Job, 'reason' | 'exit_code' | 'signal'>): string {
  if (job.reason === null) return ''
  if (job.reason === 'exit_code') return `exit code ${job.exit_code}`
  if (job.reason === 'signal') return `ended by ${job.signal}`
  return REASONS[job.reason]
}

export function waitingOf({ waiting_for }: Pick<Job, 'waiting_for'>): string {
  if (waiting_for === null) return 'waiting'
  return { slot: 'waiting for a free slot', concurrency_key: 'waiting for another job', worker: 'waiting for a worker' }[waiting_for]
}

export function isActive({ status }: Pick<Job, 'status'>): boolean {
  return status === 'pending' || status === 'running'
}

/** Whether a job runs and is ready, such as an application: it makes no progress towards an end. */
export function isUp({ status, ready_at, progress }: Pick<Job, 'status' | 'ready_at' | 'progress'>): boolean {
  return status === 'running' && ready_at !== null && progress.percent === null
}

/** How long a job has been running, or ran; null when it never started. */
export function ranFor(job: Pick<Job, 'started_at' | 'ended_at'>, now: number): number | null {
  if (job.started_at === null) return null
  return (job.ended_at === null ? now : Date.parse(job.ended_at)) - Date.parse(job.started_at)
}

/** The time now, updated each second while `ticking`, and every ten seconds otherwise. */
export function useNow(ticking = true): number {
  const [now, setNow] = useState(Date.now)
  useEffect(() => {
    setNow(Date.now())
    const timer = setInterval(() => document.hidden || setNow(Date.now()), ticking ? 1000 : 10_000)
    return () => clearInterval(timer)
  }, [ticking])
  return now
}
