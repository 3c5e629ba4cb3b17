import { createRoot } from 'react-dom/client'
import { applyTheme } from '../shared/theme'
import { App } from './App'
import { Connection } from './connection'
import type { Contracts, JsonObject } from './contracts'
import { Schemas } from './schemas'
import '../shared/base.css'
import './events.css'

applyTheme()

const root = createRoot(document.getElementById('root') as HTMLElement)

async function load(address: string): Promise<JsonObject> {
  const answer = await fetch(address)
  if (!answer.ok) throw new Error(`The server answered ${answer.status} for ${address}.`)
  return (await answer.json()) as JsonObject
}

try {
  const [asyncapi, openapi] = await Promise.all([load('../asyncapi.json'), load('../openapi.json')])
  const contracts: Contracts = { asyncapi, openapi }
  const { pathname } = (asyncapi.servers as { this: { pathname: string } }).this
  const connection = new Connection(location.origin, pathname, new Schemas(asyncapi, openapi))
  root.render(<App connection={connection} contracts={contracts} />)
} catch (error) {
  root.render(
    <main className="failed" role="alert">
      <h1>The contract could not be loaded</h1>
      <p>{error instanceof Error ? error.message : String(error)}</p>
      <p>
        <button type="button" className="button" onClick={() => location.reload()}>
          Try again
        </button>
      </p>
    </main>,
  )
}
