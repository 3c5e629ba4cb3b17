import type { Status } from '../api'

const SHAPES: Record<Status, string> = {
  pending: 'M8 4.6V8l2.2 1.6',
  running: 'M8 2.2a5.8 5.8 0 0 1 5.8 5.8',
  completed: 'm5.2 8.2 2 2 3.8-4.2',
  failed: 'm5.8 5.8 4.4 4.4m0-4.4-4.4 4.4',
  cancelled: 'M5.4 8h5.2',
}

/** A status as a shape, a colour and a word: each of them is enough to tell it. */
export function StatusMark({ status, big = false }: { status: Status; big?: boolean }) {
  return (
    <span className={big ? 'status big' : 'status'} data-status={status}>
      <svg viewBox="0 0 16 16" aria-hidden="true">
        <circle cx="8" cy="8" r="5.8" className="ring" />
        <path d={SHAPES[status]} />
      </svg>
      {status}
    </span>
  )
}
