import { createRoot } from 'react-dom/client'
import { applyTheme } from '../shared/theme'
import { App, type Contracts } from './App'
import { Connection } from './connection'
import { type JsonObject, Schemas } from './schemas'
import '../shared/base.css'
import './events.css'

applyTheme()

const root = createRoot(document.getElementById('root')!)

async function load(address: string): Promise<JsonObject> {
  const answer = await fetch(address)
  if (!answer.ok) throw new Error(`${address} is answered with ${answer.status}.`)
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
        <a href="">Try again</a>
      </p>
    </main>,
  )
}
