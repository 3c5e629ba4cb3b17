/** The events contract as data for the page: each event with its messages, their fields and their examples. Pure; draws nothing. */
import { type Contracts, isObject, type Json, type JsonObject, objectAt } from '../contracts.ts'
import { SchemaReader, type Table } from './tables.ts'

export interface Description {
  title: string
  version: string
  introduction: string
  operations: Operation[]
  /** Schemas that both contracts share, in the order in which they are first referred to. */
  types: { name: string; tables: Table[] }[]
}

export interface Operation {
  name: string
  /** Whether the client or the server sends the event. */
  sender: 'client' | 'server'
  summary: string
  description: string
  messages: Message[]
  replies: Message[]
}

export interface Message {
  name: string
  summary: string
  tables: Table[]
  examples: { summary: string; payload: Json }[]
}

/** Throws an Error when the contract refers to something that it does not have. */
export function describe({ asyncapi, openapi }: Contracts): Description {
  const reader = new SchemaReader(openapi)
  const { title, version, description } = objectAt(asyncapi, 'info')
  const operations = Object.entries(objectAt(asyncapi, 'operations')).map(([name, operation]) =>
    operationOf(name, operation as JsonObject, asyncapi, reader),
  )
  return { title: text(title), version: text(version), introduction: text(description), operations, types: reader.sharedTypes() }
}

function operationOf(name: string, operation: JsonObject, asyncapi: JsonObject, reader: SchemaReader): Operation {
  return {
    name,
    sender: operation.action === 'receive' ? 'client' : 'server',
    summary: text(operation.summary),
    description: text(operation.description),
    messages: messagesOf(operation, asyncapi, reader),
    replies: isObject(operation.reply) ? messagesOf(operation.reply, asyncapi, reader) : [],
  }
}

function messagesOf({ messages }: JsonObject, asyncapi: JsonObject, reader: SchemaReader): Message[] {
  return ((messages ?? []) as readonly JsonObject[]).map(reference => {
    const { name, summary, payload, examples } = followed(reference, asyncapi)
    return {
      name: text(name),
      summary: text(summary),
      tables: isObject(payload) ? reader.tables(payload.schema as JsonObject, asyncapi) : [],
      examples: ((examples ?? []) as readonly JsonObject[]).map(example => ({
        summary: text(example.summary),
        payload: example.payload ?? null,
      })),
    }
  })
}

/** An operation refers to a message of its channel, which refers to one of the components. */
function followed(node: JsonObject, asyncapi: JsonObject): JsonObject {
  return typeof node.$ref === 'string' ? followed(objectAt(asyncapi, ...node.$ref.split('/').slice(1)), asyncapi) : node
}

function text(value: Json | undefined): string {
  return typeof value === 'string' ? value : ''
}
