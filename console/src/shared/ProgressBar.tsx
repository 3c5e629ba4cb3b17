import type { Job } from '../api'

/** How far a job is. Without a percentage, it only shows that the job is running. */
export function ProgressBar({ progress, label }: { progress: Job['progress']; label: string }) {
  const { percent } = progress
  return (
    <span
      className={percent === null ? 'progress unknown' : 'progress'}
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={percent === null ? undefined : Math.round(percent)}
      aria-valuetext={progress.message ?? undefined}
    >
      <span style={{ width: percent === null ? undefined : `${percent}%` }} />
    </span>
  )
}
