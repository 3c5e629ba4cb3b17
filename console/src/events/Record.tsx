// All that went over the connection, in order, with the verdict of the contract on each; filtered, paused and cleared by the person.
import { memo, useLayoutEffect, useMemo, useRef, useState } from 'react'
import type { Connection, Entry, View } from './connection'
import type { Json } from './schemas'
import { pretty, visible } from './text'

const NEAR_THE_END = 40
const MOST_SHOWN = 100_000
const DIRECTIONS = { in: '← from the server', out: '→ to the server', own: 'connection' }
const SIGNS = { in: '←', out: '→', own: '·' }

export function Record({ connection, view, names }: { connection: Connection; view: View; names: readonly string[] }) {
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set())
  const [onlyInvalid, setOnlyInvalid] = useState(false)
  const shown = useMemo(
    () => view.entries.filter(({ name, faults }) => !hidden.has(name) && (!onlyInvalid || faults.length > 0)),
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
            {view.paused ? 'Go on' : 'Pause'}
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
      {view.dropped > 0 && <p className="muted">The oldest {view.dropped} are no longer kept here.</p>}
      {shown.length > 0 && <List entries={shown} />}
      {total === 0 && <p className="muted empty">Nothing yet. Connect, then subscribe to a job, or to all.</p>}
      {total > 0 && shown.length === 0 && <p className="muted empty">Nothing that is chosen above.</p>}
    </section>
  )
}

/** Stays at the newest entry while it is in sight. */
function List({ entries }: { entries: readonly Entry[] }) {
  const list = useRef<HTMLOListElement>(null)
  const [following, setFollowing] = useState(true)
  const toTheEnd = () => list.current?.scrollTo({ top: list.current.scrollHeight })

  useLayoutEffect(() => {
    if (following) toTheEnd()
  }, [entries, following])

  function scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = list.current!
    setFollowing(scrollHeight - scrollTop - clientHeight < NEAR_THE_END)
  }

  return (
    <div className="entries">
      <ol ref={list} onScroll={scrolled} tabIndex={0} aria-label="Recorded events, oldest first">
        {entries.map(entry => (
          <Row key={entry.number} entry={entry} />
        ))}
      </ol>
      {!following && (
        <button type="button" className="button newest" onClick={() => setFollowing(true)}>
          To the newest
        </button>
      )}
    </div>
  )
}

const Row = memo(function Row({ entry }: { entry: Entry }) {
  const [open, setOpen] = useState(false)
  const { at, direction, name, payload, faults } = entry
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
      {direction !== 'own' && <Verdict valid={faults.length === 0} />}
    </>
  )
  if (direction === 'own') return <li className="own">{heading}</li>
  return (
    <li className={faults.length ? 'invalid' : ''}>
      <details onToggle={event => setOpen(event.currentTarget.open)}>
        <summary>{heading}</summary>
        {open && <Payload payload={payload} />}
      </details>
      {faults.length > 0 && (
        <ul className="faults">
          {faults.map(({ pointer, detail }, index) => (
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
      <pre tabIndex={0} aria-label="Payload">
        {cut ? text.slice(0, MOST_SHOWN) : text}
      </pre>
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

function Copy({ text }: { text: string }) {
  const [done, setDone] = useState<boolean>()
  const copy = () =>
    navigator.clipboard.writeText(text).then(
      () => setDone(true),
      () => setDone(false),
    )
  // Browsers have a clipboard only for pages that came over a safe connection, or from this machine.
  if (!('clipboard' in navigator)) return null
  return (
    <>
      <button type="button" className="button small" onClick={() => void copy()}>
        Copy
      </button>
      <span role="status" className="muted">
        {done === undefined ? '' : done ? 'Copied' : 'The browser did not allow it'}
      </span>
    </>
  )
}

const GIST = 200

/** The little that tells one event from the next; all of it is in the payload. */
function gist(payload: Json | undefined): string {
  if (typeof payload === 'string') return visible(payload)
  if (payload === undefined || payload === null || typeof payload !== 'object' || Array.isArray(payload)) return ''
  const { lines, at: _, ...rest } = payload as { [key: string]: Json }
  const parts = Object.entries(rest).map(([key, value]) => (key === 'job_id' ? ending(value) : `${key}: ${brief(value)}`))
  const text = Array.isArray(lines) ? [lines.length > 1 ? `${lines.length} lines: ${lines[0]}` : String(lines[0])] : []
  return visible([...text, ...parts].join(' · ').slice(0, GIST)).replaceAll('\n', ' ')
}

const brief = (value: Json) => (value !== null && typeof value === 'object' ? '{…}' : String(value))

/** Jobs of one minute begin alike. */
const ending = (value: Json) => `…${String(value).slice(-6)}`
