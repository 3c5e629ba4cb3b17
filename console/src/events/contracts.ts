/** The two contracts of the server as JSON documents: asyncapi.json, whose schemas refer to those of openapi.json. */
export type Json = null | boolean | number | string | readonly Json[] | JsonObject
export type JsonObject = { readonly [key: string]: Json }

export interface Contracts {
  readonly asyncapi: JsonObject
  readonly openapi: JsonObject
}

/** The object at a place of a document. Throws an Error when there is none. */
export function objectAt(root: JsonObject, ...steps: string[]): JsonObject {
  let node: Json | undefined = root
  for (const step of steps) node = isObject(node) ? node[step] : undefined
  if (!isObject(node)) throw new Error(`The contract has no ${steps.join('/')}.`)
  return node
}

export function isObject(node: Json | undefined): node is JsonObject {
  return node !== null && typeof node === 'object' && !Array.isArray(node)
}
