// Generates the types of the client from the two contracts: `client/src/generated/jobs.ts` from the HTTP contract, `events.ts` from the events contract.
// Also generates, for the form of the page, the schema of the options that every job type has.
//
// The payloads of the events are OpenAPI schemas that refer to those of `jobs.yaml`, so one generator makes both. Nothing here is written by hand,
// and it is not committed.
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import openapiTS, { astToString } from 'openapi-typescript'
import { parse } from 'yaml'

const root = new URL('../../', import.meta.url)
const target = new URL('../client/src/generated/', import.meta.url)
const read = async path => parse(await readFile(new URL(path, root), 'utf8'))

const openapi = await read('openapi/jobs.yaml')
const asyncapi = await read('openapi/jobs.asyncapi.yaml')

await mkdir(target, { recursive: true })
await write('jobs.ts', openapi)
await write('events.ts', documentOfPayloads(openapi, asyncapi), mapsOfEvents(asyncapi))
await writeOptions(openapi)

async function write(name, document, rest = '') {
  const nodes = await openapiTS(document, { alphabetize: false, defaultNonNullable: false })
  await writeFile(new URL(name, target), `// Generated from the contract; see scripts/generate.mjs.\n\n${astToString(nodes)}${rest}`)
}

/** What any submission may say beside its type and its params, as one schema without references, for the page's form. */
async function writeOptions({ components: { schemas } }) {
  const { type: _, params: __, ...options } = schemas.TaskSubmission.properties
  const whole = node => {
    if (Array.isArray(node)) return node.map(whole)
    if (node === null || typeof node !== 'object') return node
    if ('$ref' in node) return whole(schemas[node.$ref.split('/').at(-1)])
    return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, whole(value)]))
  }
  const properties = Object.entries(options).map(([name, node]) => [
    name,
    { title: name.replaceAll('_', ' ').replace(/^./, first => first.toUpperCase()), ...whole(node) },
  ])
  const folder = new URL('../src/generated/', import.meta.url)
  await mkdir(folder, { recursive: true })
  const schema = { type: 'object', additionalProperties: false, properties: Object.fromEntries(properties) }
  await writeFile(new URL('submission-options.json', folder), `${JSON.stringify(schema, null, 2)}\n`)
}

/** The schemas of all payloads beside those that they refer to, as a document without calls. */
function documentOfPayloads({ info, components }, { components: { messages } }) {
  const schemas = { ...components.schemas }
  for (const [name, message] of Object.entries(messages)) {
    if (message.payload) schemas[`${name}_event`] = localised(message.payload.schema)
  }
  return { openapi: '3.0.3', info, paths: {}, components: { schemas } }
}

function localised(node) {
  if (Array.isArray(node)) return node.map(localised)
  if (node === null || typeof node !== 'object') return node
  const entries = Object.entries(node).map(([key, value]) => [
    key,
    key === '$ref' && typeof value === 'string' ? value.replace(/^jobs\.yaml#/, '#') : localised(value),
  ])
  return Object.fromEntries(entries)
}

/** The two maps that socket.io-client is typed by. Its own events, which clients do not send by name, are left out. */
function mapsOfEvents({ operations, channels, components }) {
  const payload = name => `components['schemas']['${name}_event']`
  const namesOf = ({ messages = [] } = {}) => messages.map(({ $ref }) => resolve($ref))
  const sent = action => Object.values(operations).filter(operation => operation.action === action)
  const own = new Set(['connect', 'connect_error', 'disconnect'])

  const toClient = sent('send')
    .flatMap(operation => namesOf(operation))
    .map(name => `  ${name}: (payload: ${payload(name)}) => void`)
  const toServer = sent('receive')
    .flatMap(operation => namesOf(operation).map(name => [name, namesOf(operation.reply)]))
    .filter(([name]) => !own.has(name))
    .map(([name, replies]) => {
      const ack = replies.length ? `, ack: (answer: ${replies.map(payload).join(' | ')}) => void` : ''
      return `  ${name}: (payload: ${payload(name)}${ack}) => void`
    })
  const map = (name, about, lines) => `\n/** ${about} */\nexport interface ${name} {\n${lines.join('\n')}\n}\n`
  return (
    map('ServerToClientEvents', 'What the server sends, by event.', toClient) +
    map('ClientToServerEvents', 'What a client may send, by event, with the acknowledgement.', toServer) +
    `\n/** What a client connects with. */\nexport type Auth = ${payload('connect')}\n`
  )

  function resolve(reference) {
    const name = reference.split('/').at(-1)
    const message = channels.jobs.messages[name]
    return components.messages[message.$ref.split('/').at(-1)].name
  }
}
