// The events contract as the AsyncAPI component wants it: with every reference followed, as its own parser would leave it. That parser compiles code from
// text, which the policy of the page forbids; and there is nothing left to validate in a document that the server has started with.
import { type Json, type JsonObject, objectAt } from './schemas'

type Node = { [key: string]: unknown }

/** How the official parser marks what it has read. */
const PARSED = { 'x-parser-spec-parsed': true, 'x-parser-api-version': 3 }
const NAME = 'x-parser-unique-object-id'

export function prepared(asyncapi: JsonObject, openapi: JsonObject): Node {
  const { defaultContentType: _, ...document } = follow(asyncapi, asyncapi, openapi) as Node
  const { channels, components, operations } = document as Record<string, Record<string, Node>>
  named(channels!)
  named(operations!)
  named(components!.messages as Record<string, Node>)
  for (const message of Object.values(components!.messages as Record<string, Node>)) {
    if (message.payload) message.payload = (message.payload as Node).schema
  }
  for (const [name, operation] of Object.entries(operations!)) {
    // Every event goes through the one namespace of Socket.IO; what tells them apart, and
    // belongs into the heading, is the event's name.
    const { description: _, ...channel } = operation.channel as Node
    operation.channel = { ...channel, address: name }
    if (operation.reply) delete (operation.reply as Node).channel
  }
  return { ...document, ...PARSED }
}

function named(objects: Record<string, Node>): void {
  for (const [name, object] of Object.entries(objects)) object[NAME] = name
}

/** A copy in which references are the objects themselves, each of them once: an object that is referred to twice is one object. */
function follow(node: Json, home: JsonObject, openapi: JsonObject): unknown {
  const copies = new Map<Json, unknown>()
  const copy = (value: Json, root: JsonObject): unknown => {
    if (value === null || typeof value !== 'object') return value
    const reference = (value as JsonObject).$ref
    if (typeof reference === 'string') {
      const [file, pointer] = reference.split('#') as [string, string]
      const target = file ? openapi : root
      return copy(objectAt(target, ...pointer.split('/').slice(1).map(unescaped)), target)
    }
    const known = copies.get(value)
    if (known) return known
    const made: Node | unknown[] = Array.isArray(value) ? [] : {}
    copies.set(value, made)
    for (const [key, member] of Object.entries(value)) (made as Node)[key] = copy(member, root)
    return Array.isArray(made) ? made : plainer(made)
  }
  return copy(node, home)
}

/** OpenAPI 3.0 needs an `allOf` of one to say more about what is referred to, and a word of its own for null. Shown as what is meant. */
function plainer(schema: Node): Node {
  const { allOf, nullable, type } = schema
  if (Array.isArray(allOf) && allOf.length === 1) {
    delete schema.allOf
    Object.assign(schema, { ...(allOf[0] as Node), ...schema })
  }
  if (nullable === true && typeof type === 'string') {
    delete schema.nullable
    schema.type = [type, 'null']
  }
  return schema
}

const unescaped = (step: string) => step.replaceAll('~1', '/').replaceAll('~0', '~')
