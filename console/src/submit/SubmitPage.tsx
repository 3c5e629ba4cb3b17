/** A form for each job type, made from the schema that the server publishes for it. */

// Not from '@rjsf/core' itself, which also exports helpers for tests, and with them another validator.
import Form, { type IChangeEvent } from '@rjsf/core/lib/components/Form.js'
import type { ErrorSchema, RJSFSchema } from '@rjsf/utils'
import { type components, ProblemError } from '@runcast/client'
import { useEffect, useMemo, useRef, useState } from 'react'
import { answer, errorText, isUnauthenticated, type JobTypeInfo, useApi, useCall } from '../api'
import optionsSchema from '../generated/submission-options.json'
import { go, toJob, toJobs, toNew } from '../route'
import { formSchema, uiSchemaOf } from './schemas'
import { templates, widgets } from './templates'
import { validator } from './validator'

type Submission = components['schemas']['Submission']
type Values = Record<string, unknown>

export function SubmitPage({ chosen }: { chosen: string | null }) {
  const { value, error } = useCall(async api => {
    const [{ job_types }, catalog] = await Promise.all([
      answer(api.http.GET('/job-types')),
      // Without its templates the form still works: their names can be typed.
      answer(api.http.GET('/templates')).catch(() => ({ templates: [] })),
    ])
    return { types: job_types, templates: catalog.templates.filter(({ creatable }) => creatable) }
  }, 'types')
  if (error !== null && !value) return <p className="problem">{errorText(error)}</p>
  if (!value) return <p className="quiet-note">Loading …</p>
  const type = value.types.find(info => keyOf(info) === chosen) ?? null
  return (
    <div className="submit-page">
      <a className="back" href={toJobs()}>
        Jobs
      </a>
      <h1>New job</h1>
      <div className="submit-columns">
        <nav className="card types" aria-label="Job types">
          <ul>
            {value.types.map(info => (
              <li key={keyOf(info)}>
                <a href={toNew(keyOf(info))} aria-current={info === type ? 'true' : undefined}>
                  <span>{info.title}</span>
                  <span className="muted">{info.task ?? info.description ?? String(info.schema.description ?? info.type)}</span>
                </a>
              </li>
            ))}
          </ul>
        </nav>
        {type ? (
          <JobForm key={keyOf(type)} info={type} templates={value.templates} />
        ) : (
          <p className="quiet-note choose">Choose a job type</p>
        )}
      </div>
    </div>
  )
}

/** The name of a job type in addresses: its type, or its task. */
function keyOf({ type, task }: JobTypeInfo): string {
  return task === null ? type : `task:${task}`
}

function JobForm({ info, templates: known }: { info: JobTypeInfo; templates: components['schemas']['Template'][] }) {
  const api = useApi()
  const [params, setParams] = useState<Values>({})
  const [options, setOptions] = useState<Values>({})
  const [optionsValid, setOptionsValid] = useState(true)
  const [busy, setBusy] = useState(false)
  const [problem, setProblem] = useState<string | null>(null)
  const [refused, setRefused] = useState<ErrorSchema>({})
  const schema = useMemo(() => formSchema(info, known), [info, known])
  const ui = useMemo(() => uiSchemaOf(schema, known), [schema, known])

  const submit = async (values: Values) => {
    setBusy(true)
    setProblem(null)
    setRefused({})
    const given = info.task === null ? values : { task: info.task, inputs: values }
    try {
      const body = { type: info.type, params: given, ...filled(options) } as Submission
      const job = await answer(
        api.http.POST('/jobs/submit', { body, params: { header: { 'Idempotency-Key': crypto.randomUUID?.() ?? String(Math.random()) } } }),
      )
      go(toJob(job.id))
    } catch (error) {
      if (isUnauthenticated(error)) api.signOut(errorText(error))
      setProblem(errorText(error))
      setRefused(violationsOf(error, info.task === null ? ['params'] : ['params', 'inputs']))
      setBusy(false)
    }
  }
  // On a narrow screen the form is below the job types, out of sight.
  const card = useRef<HTMLDivElement>(null)
  useEffect(() => {
    if (matchMedia('(width <= 760px)').matches) card.current?.scrollIntoView()
  }, [])
  return (
    <div ref={card} className="card job-form">
      <h2>{info.title}</h2>
      {info.task !== null && info.description && <p className="muted">{info.description}</p>}
      <Form
        id="job"
        idPrefix="params"
        schema={schema}
        uiSchema={ui}
        validator={validator}
        templates={templates}
        widgets={widgets}
        formData={params}
        extraErrors={refused}
        showErrorList={false}
        focusOnFirstError
        noHtml5Validate
        disabled={busy || !api.mayWrite}
        onChange={({ formData }: IChangeEvent<Values>) => setParams(formData ?? {})}
        onError={() => setProblem(null)}
        onSubmit={({ formData }: IChangeEvent<Values>) => void submit(formData ?? {})}
      >
        <span />
      </Form>
      <details className="options">
        <summary>More options: priority, labels, limits</summary>
        <Form
          idPrefix="options"
          schema={optionsSchema as RJSFSchema}
          uiSchema={OPTIONS_UI}
          validator={validator}
          templates={templates}
          widgets={widgets}
          formData={options}
          showErrorList={false}
          liveValidate
          noHtml5Validate
          disabled={busy || !api.mayWrite}
          tagName="div"
          onChange={({ formData, errors }: IChangeEvent<Values>) => {
            setOptions(formData ?? {})
            setOptionsValid(errors.length === 0)
          }}
        >
          <span />
        </Form>
      </details>
      {problem && (
        <p className="problem" role="alert">
          {problem}
        </p>
      )}
      {!api.mayWrite && <p className="problem">The token “{api.whoami.name}” may read jobs, but not submit them.</p>}
      <button type="submit" form="job" className="button primary" disabled={busy || !optionsValid || !api.mayWrite}>
        {busy ? 'Submitting …' : 'Submit'}
      </button>
    </div>
  )
}

const OPTIONS_UI = uiSchemaOf(optionsSchema as RJSFSchema)

/** Without the values that were left empty. */
function filled(values: Values): Values {
  return Object.fromEntries(
    Object.entries(values).filter(([, value]) => value !== undefined && !(Array.isArray(value) && value.length === 0)),
  )
}

/** The violations that the server reported, in the shape that the form needs. */
function violationsOf(error: unknown, place: string[]): ErrorSchema {
  const violations: ErrorSchema = {}
  if (!(error instanceof ProblemError)) return violations
  for (const { in: part, pointer, detail } of error.problem.errors ?? []) {
    const steps = pointer.replace(/^#\/?/, '').split('/')
    if (part !== 'body' || !place.every((step, index) => steps[index] === step)) continue
    let at = violations as Record<string, ErrorSchema>
    for (const step of steps.slice(place.length)) {
      at[step] ??= {}
      at = at[step] as Record<string, ErrorSchema>
    }
    ;(at as ErrorSchema).__errors = [...((at as ErrorSchema).__errors ?? []), detail]
  }
  return violations
}
