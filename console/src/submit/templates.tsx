/** How the parts of the form library look here: plain fields, each with its label, help and errors. */
import {
  type ArrayFieldItemTemplateProps,
  type ArrayFieldTemplateProps,
  ariaDescribedByIds,
  descriptionId,
  errorId,
  type FieldErrorProps,
  type FieldTemplateProps,
  type ObjectFieldTemplateProps,
  type RegistryWidgetsType,
  type WidgetProps,
} from '@rjsf/utils'

function Field({ id, label, required, description, rawErrors = [], errors, children, hidden, displayLabel, schema }: FieldTemplateProps) {
  if (hidden) return <div hidden>{children}</div>
  const group = schema.type === 'object' || schema.type === 'array'
  return (
    <div className={rawErrors.length ? 'form-field invalid' : 'form-field'}>
      {displayLabel && schema.type !== 'boolean' && !group && (
        <label htmlFor={id}>
          {label}
          {!required && <span className="muted"> (optional)</span>}
        </label>
      )}
      {children}
      {!group && description}
      {errors}
    </div>
  )
}

function Errors({ errors = [], fieldPathId }: FieldErrorProps) {
  if (errors.length === 0) return null
  return (
    <ul id={errorId(fieldPathId)} className="form-errors" role="alert">
      {errors.map((error, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: errors have no identity
        <li key={index}>{error}</li>
      ))}
    </ul>
  )
}

function ObjectFields({ title, properties, fieldPathId }: ObjectFieldTemplateProps) {
  const fields = properties.filter(({ hidden }) => !hidden).map(({ content }) => content)
  if (fields.length === 0) return <p className="muted">This job type has no parameters.</p>
  if (fieldPathId.path.length === 0) return <>{fields}</>
  return (
    <fieldset>
      <legend>{title}</legend>
      {fields}
    </fieldset>
  )
}

function ArrayFields({ title, items, canAdd, onAddClick, disabled, schema, fieldPathId, required }: ArrayFieldTemplateProps) {
  return (
    <fieldset className="form-array">
      <legend>
        {title}
        {!required && <span className="muted"> (optional)</span>}
      </legend>
      {schema.description && (
        <p id={descriptionId(fieldPathId)} className="form-help muted">
          {withCode(schema.description)}
        </p>
      )}
      {items}
      {canAdd && (
        <button type="button" className="button small" disabled={disabled} onClick={onAddClick}>
          Add
        </button>
      )}
    </fieldset>
  )
}

function ArrayItem({ children, index, buttonsProps, disabled }: ArrayFieldItemTemplateProps) {
  return (
    <div className="form-array-item">
      {children}
      {buttonsProps.hasRemove && (
        <button
          type="button"
          className="icon-button"
          aria-label={`Remove item ${index + 1}`}
          disabled={disabled}
          onClick={buttonsProps.onRemoveItem}
        >
          <svg viewBox="0 0 20 20" aria-hidden="true">
            <path d="m6 6 8 8m0-8-8 8" />
          </svg>
        </button>
      )}
    </div>
  )
}

function Description({ id, description }: { id: string; description?: unknown }) {
  if (typeof description !== 'string' || description === '') return null
  return (
    <p id={id} className="form-help muted">
      {withCode(description)}
    </p>
  )
}

/** Text in backticks becomes code. */
function withCode(text: string) {
  // biome-ignore lint/suspicious/noArrayIndexKey: the parts of a text never change their places
  return text.split('`').map((part, index) => (index % 2 ? <code key={index}>{part}</code> : part))
}

/** One line of text, or a number. */
function Input(props: WidgetProps) {
  const { id, value, required, disabled, readonly, rawErrors = [], schema, label } = props
  const number = schema.type === 'integer' || schema.type === 'number'
  return (
    <input
      {...common(props)}
      id={id}
      className="field"
      type={number ? 'number' : 'text'}
      step={schema.type === 'integer' ? 1 : 'any'}
      min={schema.minimum}
      max={schema.maximum}
      maxLength={schema.maxLength}
      value={value ?? ''}
      required={required}
      disabled={disabled}
      readOnly={readonly}
      aria-invalid={rawErrors.length > 0}
      aria-label={schema.title || label ? undefined : `Item ${id.split('_').at(-1)}`}
      autoComplete="off"
      spellCheck={false}
      onChange={event => props.onChange(event.target.value === '' ? undefined : number ? Number(event.target.value) : event.target.value)}
    />
  )
}

function TextArea(props: WidgetProps) {
  const { id, value, required, disabled, rawErrors = [], options } = props
  return (
    <textarea
      {...common(props)}
      id={id}
      className="field mono"
      rows={Number(options.rows ?? 5)}
      value={value ?? ''}
      required={required}
      disabled={disabled}
      aria-invalid={rawErrors.length > 0}
      spellCheck={false}
      onChange={event => props.onChange(event.target.value === '' ? undefined : event.target.value)}
    />
  )
}

function Select(props: WidgetProps) {
  const { id, value, required, disabled, options, rawErrors = [] } = props
  const choices = options.enumOptions ?? []
  const chosen = choices.findIndex(choice => choice.value === value)
  return (
    <select
      {...common(props)}
      id={id}
      className="field"
      value={chosen < 0 ? '' : chosen}
      required={required}
      disabled={disabled}
      aria-invalid={rawErrors.length > 0}
      onChange={event => props.onChange(event.target.value === '' ? undefined : choices[Number(event.target.value)]?.value)}
    >
      <option value="">{required ? 'Choose …' : 'Default of the job type'}</option>
      {choices.map((choice, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: the value of an option is its index
        <option key={index} value={index}>
          {choice.label}
        </option>
      ))}
    </select>
  )
}

function Checkbox(props: WidgetProps) {
  return (
    <label className="checkbox">
      <input
        {...common(props)}
        id={props.id}
        type="checkbox"
        checked={props.value === true}
        disabled={props.disabled}
        onChange={event => props.onChange(event.target.checked || undefined)}
      />
      {props.label}
    </label>
  )
}

function common({ id }: WidgetProps) {
  return { name: id, 'aria-describedby': ariaDescribedByIds(id) }
}

export const templates = {
  FieldTemplate: Field,
  FieldErrorTemplate: Errors,
  ObjectFieldTemplate: ObjectFields,
  ArrayFieldTemplate: ArrayFields,
  ArrayFieldItemTemplate: ArrayItem,
  DescriptionFieldTemplate: Description,
}

export const widgets: RegistryWidgetsType = {
  TextWidget: Input,
  UpDownWidget: Input,
  TextareaWidget: TextArea,
  SelectWidget: Select,
  CheckboxWidget: Checkbox,
}
