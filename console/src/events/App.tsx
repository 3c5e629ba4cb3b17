// The console for events: the live events on the left, the contract on the right.
import { type FormEvent, lazy, type ReactNode, Suspense, useEffect, useId, useState, useSyncExternalStore } from 'react'
import { Header } from '../shared/Header'
import { storedToken, storeToken } from '../shared/session'
import type { Connection, State, View, Wanted } from './connection'
import type { Contracts, JsonObject } from './contracts'
import { EventRecord } from './EventRecord'

const ContractDocument = lazy(() => import('./contract/ContractDocument'))
const JOB_ID = '[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}'

export function App({ connection, contracts }: { connection: Connection; contracts: Contracts }) {
  const view = useSyncExternalStore(connection.subscribeToView, connection.getView)
  return (
    <>
      <Header here="Events" root="../../" />
      <main className="split">
        <section className="console" aria-labelledby="console-title">
          <h1 id="console-title">Live events</h1>
          <ConnectionPanel connection={connection} state={view.state} />
          <Subscriptions connection={connection} view={view} />
          <EventRecord connection={connection} view={view} names={namesOf(contracts.asyncapi)} />
        </section>
        <section className="contract" aria-label="Events contract">
          <Suspense fallback={<p className="muted">Loading the contract …</p>}>
            <ContractDocument contracts={contracts} />
          </Suspense>
        </section>
      </main>
    </>
  )
}

/** The names of all messages, in the order of the contract. */
function namesOf(asyncapi: JsonObject): string[] {
  const { messages } = asyncapi.components as { messages: { [key: string]: { name: string } } }
  return Object.values(messages).map(({ name }) => name)
}

function ConnectionPanel({ connection, state }: { connection: Connection; state: State }) {
  const [token, setToken] = useState(storedToken() ?? '')
  const hint = useId()
  const idle = state.kind === 'off' || state.kind === 'refused'

  useEffect(() => {
    const kept = storedToken()
    if (kept) connection.connect(kept)
    return () => connection.disconnect()
  }, [connection])

  function connect(event: FormEvent) {
    event.preventDefault()
    storeToken(token)
    connection.connect(token)
  }

  function forget() {
    connection.disconnect()
    storeToken(null)
    setToken('')
  }

  return (
    <form className="connection" onSubmit={connect}>
      <div className="row">
        <p className={`state ${state.kind}`} role="status">
          {stateText(state)}
        </p>
        <span className="actions">
          {!idle && (
            <button type="button" className="button" onClick={() => connection.disconnect()}>
              Disconnect
            </button>
          )}
          {storedToken() && (
            <button type="button" className="button" onClick={forget}>
              Forget the token
            </button>
          )}
        </span>
      </div>
      {idle && (
        <>
          <div className="row">
            <Field label="Token" className="wide" described={hint}>
              {attributes => (
                <input
                  {...attributes}
                  className="field"
                  type="password"
                  autoComplete="off"
                  spellCheck={false}
                  required
                  maxLength={1000}
                  value={token}
                  onChange={event => setToken(event.target.value)}
                />
              )}
            </Field>
            <button type="submit" className="button primary">
              Connect
            </button>
          </div>
          <p id={hint} className="muted">
            A token with the scope <code>jobs:read</code>; <code>runcast token</code> prints one. It is kept until this tab is closed.
          </p>
        </>
      )}
    </form>
  )
}

function stateText(state: State): string {
  switch (state.kind) {
    case 'off':
      return state.detail ?? 'Not connected'
    case 'connecting':
      return 'Connecting …'
    case 'on':
      return `Connected by ${state.transport === 'websocket' ? 'WebSocket' : 'long-polling'}`
    case 'lost':
      return state.attempts > 1 ? `Connection lost. Reconnecting, attempt ${state.attempts}` : 'Connection lost. Reconnecting'
    case 'refused':
      return `Refused: ${state.detail}`
  }
}

function Subscriptions({ connection, view }: { connection: Connection; view: View }) {
  const [jobId, setJobId] = useState(() => new URLSearchParams(location.search).get('job') ?? '')
  const [afterSeq, setAfterSeq] = useState('0')
  const connected = view.state.kind === 'on'
  const jobs = useRecentJobs(connected)
  const list = useId()

  function watchJob(event: FormEvent) {
    event.preventDefault()
    void connection.subscribe({ job_id: jobId.trim(), after_seq: Number(afterSeq) })
  }

  return (
    <section aria-label="Subscriptions">
      <form className="row" onSubmit={watchJob}>
        <Field label="Job" className="wide">
          {attributes => (
            <input
              {...attributes}
              className="field mono"
              list={list}
              required
              pattern={JOB_ID}
              title="The id of a job"
              placeholder="id"
              spellCheck={false}
              autoComplete="off"
              value={jobId}
              onChange={event => setJobId(event.target.value)}
            />
          )}
        </Field>
        <datalist id={list}>
          {jobs.map(({ id, about }) => (
            <option key={id} value={id}>
              {about}
            </option>
          ))}
        </datalist>
        <Field label="After line">
          {attributes => (
            <input
              {...attributes}
              className="field"
              type="number"
              min={0}
              step={1}
              required
              value={afterSeq}
              onChange={event => setAfterSeq(event.target.value)}
            />
          )}
        </Field>
        <span className="actions">
          <button type="submit" className="button primary" disabled={!connected}>
            Subscribe
          </button>
          <button type="button" className="button" disabled={!connected} onClick={() => void connection.subscribe({ all: true })}>
            Subscribe to all jobs
          </button>
        </span>
      </form>
      {view.subscriptions.size > 0 && (
        <ul className="chips" aria-label="Subscribed">
          {[...view.subscriptions].map(([key, wanted]) => (
            <li key={key} className={wanted.state}>
              <span>
                {'all' in wanted ? 'all jobs' : <code>{wanted.job_id}</code>}{' '}
                <span className="muted">{subscriptionText(wanted, connected)}</span>
              </span>
              <button
                type="button"
                className="remove"
                aria-label={`${wanted.state === 'ended' ? 'Remove' : 'Unsubscribe from'} ${key === 'all' ? 'all jobs' : key}`}
                onClick={() => void connection.unsubscribe(key)}
              >
                ×
              </button>
            </li>
          ))}
        </ul>
      )}
    </section>
  )
}

function subscriptionText(wanted: Wanted, connected: boolean): string {
  const lines = 'all' in wanted ? '' : `, line ${wanted.after_seq}`
  if (wanted.state === 'ended') return `ended${lines}`
  if (wanted.state === 'on') return `subscribed${lines}`
  return connected ? 'subscribing …' : `subscribes again when connected${'all' in wanted ? '' : `, after line ${wanted.after_seq}`}`
}

interface RecentJob {
  readonly id: string
  readonly about: string
}

/** The newest jobs, as suggestions; read again for each connection. Without them, an id can still be typed. */
function useRecentJobs(connected: boolean): readonly RecentJob[] {
  const [jobs, setJobs] = useState<readonly RecentJob[]>([])
  useEffect(() => {
    const token = storedToken()
    if (!connected || !token) return
    const given = new AbortController()
    fetch('../jobs?limit=20', { headers: { Authorization: `Bearer ${token}` }, signal: given.signal })
      .then(answer => (answer.ok ? answer.json() : { jobs: [] }))
      .then(({ jobs }: { jobs: { id: string; type: string; status: string }[] }) =>
        setJobs(jobs.map(({ id, type, status }) => ({ id, about: `${type}, ${status}` }))),
      )
      .catch(() => undefined)
    return () => given.abort()
  }, [connected])
  return jobs
}

interface FieldAttributes {
  readonly id: string
  readonly 'aria-describedby': string | undefined
}

interface FieldProperties {
  readonly label: string
  readonly className?: string
  /** The id of the element that explains the field. */
  readonly described?: string
  readonly children: (attributes: FieldAttributes) => ReactNode
}

function Field({ label, className, described, children }: FieldProperties) {
  const id = useId()
  return (
    <span className={`labelled ${className ?? ''}`}>
      <label htmlFor={id}>{label}</label>
      {children({ id, 'aria-describedby': described })}
    </span>
  )
}
