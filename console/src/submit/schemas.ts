/** Turns the schemas of the contract into those that the form library shows well. Pure. */

import type { RJSFSchema, UiSchema } from '@rjsf/utils'
import type { components } from '@runcast/client'

type JobTypeInfo = components['schemas']['JobTypeInfo']
type Template = components['schemas']['Template']

const LONG_TEXT = 2000

/** The schema of the params (or of a task's inputs). Where a template is asked for, the existing templates are its values. */
export function formSchema({ type, schema }: JobTypeInfo, templates: Template[]): RJSFSchema {
  const { description: _, title: __, ...rest } = schema as RJSFSchema
  const form: RJSFSchema = { type: 'object', ...rest }
  if (type === 'create' && templates.length > 0 && form.properties) {
    const template = form.properties.template as RJSFSchema
    form.properties = {
      ...form.properties,
      template: { type: 'string', description: template.description ?? '', enum: templates.map(({ name }) => name) },
    }
  }
  return named(form)
}

/** A property without a title gets one, made from its name. */
function named(schema: RJSFSchema): RJSFSchema {
  if (!schema.properties) return schema
  const properties = Object.entries(schema.properties).map(([name, property]) => [
    name,
    typeof property === 'object' ? { title: words(name), ...named(property) } : property,
  ])
  return { ...schema, properties: Object.fromEntries(properties) as NonNullable<RJSFSchema['properties']> }
}

export function words(name: string): string {
  const spaced = name.replaceAll('_', ' ')
  return spaced.charAt(0).toUpperCase() + spaced.slice(1)
}

/** Long texts get a large field, and templates are shown by their titles. */
export function uiSchemaOf(schema: RJSFSchema, templates: Template[] = []): UiSchema {
  const ui: UiSchema = {}
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    if (typeof property !== 'object') continue
    if (property.type === 'string' && !property.enum && (property.maxLength ?? 0) >= LONG_TEXT)
      ui[name] = { 'ui:widget': 'textarea', 'ui:options': { rows: 6 } }
    if (name === 'template' && property.enum) ui[name] = { 'ui:enumNames': templates.map(({ name, title }) => `${title} (${name})`) }
    if (property.type === 'object') ui[name] = uiSchemaOf(property)
  }
  return ui
}
