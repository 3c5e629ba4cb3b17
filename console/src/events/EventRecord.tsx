// Every event that went over the connection, in order, and whether the contract allows it. The user filters, pauses and clears the record.
import { memo, type UIEvent, useLayoutEffect, useMemo, useRef, useState } from 'react'
import { Copy } from '../shared/Copy'
import type { Connection, Entry, View } from './connection'
import type { Json } from './contracts'
import { pretty, visible } from './text'

const NEAR_THE_END = 40
const MOST_SHOWN = 100_000
const DIRECTIONS = { in: '← from the server', out: '→ to the server', own: 'connection' }
const SIGNS = { in: '←', out: '→', own: '·' }

export function EventRecord({ connection, view, names }: { connection: Connection; view: View; names: readonly string[] }) {
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set())
  const [onlyInvalid, setOnlyInvalid] = useState(false)
  const shown = useMemo(
    () => view.entries.filter(({ name, violations }) => !hidden.has(name) && (!onlyInvalid || violations.length > 0)),
    [view.entries, hidden, onlyInvalid],
  )
  const seen = [...names.filter(name => view.counts.has(name)), ...[...view.counts.keys()].filter(name => !names.includes(name))]
  const total = [...view.counts.values()].reduce((sum, count) => sum + count, 0)

  function toggle(name: string) {
    const next = new Set(hidden)
    if (!next.delete(name)) next.add(name)
    setHidden(next)
  }

  return (
    <section className="record" aria-label="Events">
      <div className="toolbar">
        <p className="totals">
          <strong>{total}</strong> recorded, <strong className={view.invalid ? 'bad' : ''}>{view.invalid}</strong> invalid
          {view.held > 0 && <>, {view.held} waiting</>}
        </p>
        <span className="actions">
          <button
            type="button"
            className="button small"
            aria-pressed={view.paused}
            onClick={() => (view.paused ? connection.resume() : connection.pause())}
          >
            {view.paused ? 'Resume' : 'Pause'}
          </button>
          <button type="button" className="button small" disabled={total === 0} onClick={() => connection.clear()}>
            Clear
          </button>
        </span>
      </div>
      {total > 0 && (
        <fieldset className="filters">
          <legend className="unseen">Show</legend>
          {seen.map(name => (
            <label key={name}>
              <input type="checkbox" checked={!hidden.has(name)} onChange={() => toggle(name)} /> {visible(name)}{' '}
              <span className="muted">{view.counts.get(name)}</span>
            </label>
          ))}
          <label>
            <input type="checkbox" checked={onlyInvalid} onChange={() => setOnlyInvalid(!onlyInvalid)} /> only invalid
          </label>
        </fieldset>
      )}
      {view.dropped > 0 && <p className="muted">The oldest {view.dropped} events are no longer kept here.</p>}
      {shown.length > 0 && <List entries={shown} />}
      {total === 0 && <p className="muted empty">No events yet. Connect, then subscribe to a job or to all jobs.</p>}
      {total > 0 && shown.length === 0 && <p className="muted empty">No event matches the filters above.</p>}
    </section>
  )
}

/** Follows the newest entry while it is in sight. */
function List({ entries }: { entries: readonly Entry[] }) {
  const list = useRef<HTMLOListElement>(null)
  const [following, setFollowing] = useState(true)

  // biome-ignore lint/correctness/useExhaustiveDependencies: runs when there are new entries
  useLayoutEffect(() => {
    if (following) list.current?.scrollTo({ top: list.current.scrollHeight })
  }, [entries, following])

  function scrolled({ currentTarget }: UIEvent<HTMLOListElement>) {
    const { scrollHeight, scrollTop, clientHeight } = currentTarget
    setFollowing(scrollHeight - scrollTop - clientHeight < NEAR_THE_END)
  }

  return (
    <div className="entries">
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a list that scrolls must be reachable by keyboard */}
      <ol ref={list} onScroll={scrolled} tabIndex={0} aria-label="Recorded events, oldest first">
        {entries.map(entry => (
          <Row key={entry.number} entry={entry} />
        ))}
      </ol>
      {!following && (
        <button type="button" className="button newest" onClick={() => setFollowing(true)}>
          Go to the newest
        </button>
      )}
    </div>
  )
}

const Row = memo(function Row({ entry }: { entry: Entry }) {
  const [open, setOpen] = useState(false)
  const { at, direction, name, payload, violations } = entry
  const heading = (
    <>
      <time dateTime={at.toISOString()}>
        {at.toTimeString().slice(0, 8)}.{String(at.getMilliseconds()).padStart(3, '0')}
      </time>
      <span className="direction" role="img" aria-label={DIRECTIONS[direction]} title={DIRECTIONS[direction]}>
        {SIGNS[direction]}
      </span>
      <span className="name">{visible(name)}</span>
      <bdi className="gist">{gist(payload)}</bdi>
      {direction !== 'own' && <Verdict valid={violations.length === 0} />}
    </>
  )
  if (direction === 'own') return <li className="own">{heading}</li>
  return (
    <li className={violations.length ? 'invalid' : ''}>
      <details onToggle={event => setOpen(event.currentTarget.open)}>
        <summary>{heading}</summary>
        {open && <Payload payload={payload} />}
      </details>
      {violations.length > 0 && (
        <ul className="violations">
          {violations.map(({ pointer, detail }, index) => (
            // biome-ignore lint/suspicious/noArrayIndexKey: violations never change their places
            <li key={index}>
              <code>{visible(pointer)}</code> {visible(detail)}
            </li>
          ))}
        </ul>
      )}
    </li>
  )
})

function Verdict({ valid }: { valid: boolean }) {
  return valid ? <span className="verdict good">✓ valid</span> : <span className="verdict bad">✗ invalid</span>
}

function Payload({ payload }: { payload: Json | undefined }) {
  const text = useMemo(() => (payload === undefined ? '' : pretty(payload)), [payload])
  const [whole, setWhole] = useState(false)
  if (payload === undefined) return <p className="muted">No payload.</p>
  const cut = !whole && text.length > MOST_SHOWN
  return (
    <>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard */}
      <section className="json" tabIndex={0} aria-label="Payload">
        <pre>{cut ? text.slice(0, MOST_SHOWN) : text}</pre>
      </section>
      <span className="actions">
        {cut && (
          <button type="button" className="button small" onClick={() => setWhole(true)}>
            Show all {text.length.toLocaleString('en')} characters
          </button>
        )}
        <Copy text={text} />
      </span>
    </>
  )
}

const GIST = 200

/** What tells one event from the next, in a few words. The payload has all of it. */
function gist(payload: Json | undefined): string {
  if (typeof payload === 'string') return visible(payload)
  if (payload === undefined || payload === null || typeof payload !== 'object' || Array.isArray(payload)) return ''
  const { lines, at: _, ...rest } = payload as { [key: string]: Json }
  const parts = Object.entries(rest).map(([key, value]) => (key === 'job_id' ? ending(value) : `${key}: ${brief(value)}`))
  const text = Array.isArray(lines) ? [lines.length > 1 ? `${lines.length} lines: ${lines[0]}` : String(lines[0])] : []
  return visible([...text, ...parts].join(' · ').slice(0, GIST)).replaceAll('\n', ' ')
}

const brief = (value: Json) => (value !== null && typeof value === 'object' ? '{…}' : String(value))

/** The ids of jobs that were submitted within a minute begin alike. */
const ending = (value: Json) => `…${String(value).slice(-6)}`
