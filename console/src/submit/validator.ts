/**
 * Checks form data by JSON Schema without compiling the schema to code, which the Content-Security-Policy of the page forbids: `@cfworker/json-schema`
 * interprets the schema, and this class reports the result to the form library.
 */
import { type OutputUnit, type Schema, Validator } from '@cfworker/json-schema'
import {
  type CustomValidator,
  createErrorHandler,
  type ErrorSchema,
  ErrorSchemaBuilder,
  type ErrorTransformer,
  getDefaultFormState,
  type RJSFSchema,
  type RJSFValidationError,
  type UiSchema,
  unwrapErrorHandler,
  type ValidationData,
  type ValidatorType,
  validationDataMerge,
} from '@rjsf/utils'

/** Messages for the most frequent keywords. The messages of the others are used as they are. */
const WORDS: Record<string, string> = { required: 'is required', pattern: 'does not have the required format', type: 'has the wrong type' }
/** Keywords that only say that something within is wrong; that is reported separately. */
const CONTAINERS = new Set(['properties', 'items', 'additionalProperties', 'prefixItems', '$ref', 'allOf'])

class InterpretingValidator implements ValidatorType {
  private readonly made = new WeakMap<RJSFSchema, Validator>()

  validateFormData(
    formData: unknown,
    schema: RJSFSchema,
    customValidate?: CustomValidator,
    transformErrors?: ErrorTransformer,
    uiSchema?: UiSchema,
  ): ValidationData<unknown> {
    const found = this.rawValidation<OutputUnit>(schema, formData).errors ?? []
    const errors = found.map(toError)
    const told = transformErrors ? transformErrors(errors, uiSchema) : errors
    const data = { errors: told, errorSchema: errorSchemaOf(found) }
    if (!customValidate) return data
    const withDefaults = getDefaultFormState(this, schema, formData, schema, true)
    const handler = customValidate(withDefaults, createErrorHandler(withDefaults), uiSchema)
    return validationDataMerge(data, unwrapErrorHandler(handler))
  }

  isValid(schema: RJSFSchema, formData: unknown, rootSchema: RJSFSchema): boolean {
    // A part of the schema may refer to other parts of the whole.
    return this.check(rootSchema === schema ? schema : { ...rootSchema, allOf: [schema] }, formData).length === 0
  }

  rawValidation<Result = unknown>(schema: RJSFSchema, formData?: unknown): { errors?: Result[] } {
    return { errors: this.check(schema, formData).filter(({ keyword }) => !CONTAINERS.has(keyword)) as Result[] }
  }

  private check(schema: RJSFSchema, formData: unknown): OutputUnit[] {
    let validator = this.made.get(schema)
    if (!validator) {
      validator = new Validator(schema as Schema, '2020-12', false)
      this.made.set(schema, validator)
    }
    return validator.validate(withoutUndefined(formData)).errors
  }
}

function toError(found: OutputUnit): RJSFValidationError {
  const place = placeOf(found).join('.')
  return {
    name: found.keyword,
    message: messageOf(found),
    property: `.${place}`,
    schemaPath: found.keywordLocation,
    stack: `${place} ${messageOf(found)}`,
  }
}

/** Built step by step, because the library splits the paths of errors at dots, which may be part of a name. */
function errorSchemaOf(found: OutputUnit[]): ErrorSchema {
  const builder = new ErrorSchemaBuilder()
  for (const one of found) builder.addErrors(messageOf(one), placeOf(one))
  return builder.ErrorSchema
}

function messageOf({ keyword, error }: OutputUnit): string {
  return WORDS[keyword] ?? error
}

/** A missing property is reported itself, not the object that lacks it. */
function placeOf({ instanceLocation, keyword, error }: OutputUnit): string[] {
  const missing = keyword === 'required' ? /"(.+)"/.exec(error)?.[1] : undefined
  return [...instanceLocation.replace(/^#\/?/, '').split('/').filter(Boolean).map(unescaped), ...(missing ? [missing] : [])]
}

function unescaped(step: string): string {
  return decodeURIComponent(step).replaceAll('~1', '/').replaceAll('~0', '~')
}

/** Fields that are left empty are absent, as in the JSON that is sent. */
function withoutUndefined(value: unknown): unknown {
  return value === undefined ? {} : (JSON.parse(JSON.stringify(value)) as unknown)
}

export const validator = new InterpretingValidator()
