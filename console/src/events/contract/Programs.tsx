/** Two complete programs that connect, with the address of this server in them. They are files, so that a test can run them. */
import { Copy } from '../../shared/Copy'
import { type JsonObject, objectAt } from '../contracts'
import javascript from './programs/watch.mjs?raw'
import python from './programs/watch.py?raw'

const PROGRAMS = [
  { language: 'JavaScript', needs: 'npm install socket.io-client', program: javascript },
  { language: 'Python', needs: 'pip install "python-socketio[asyncio_client]"', program: python },
]

export function Programs({ asyncapi }: { asyncapi: JsonObject }) {
  const { protocol, host, pathname } = objectAt(asyncapi, 'servers', 'this')
  const url = `${protocol === 'wss' ? 'https' : 'http'}://${host}`
  return (
    <>
      <p>Both programs print the log of a job to its end. They reconnect by themselves and repeat no line.</p>
      {PROGRAMS.map(({ language, needs, program }) => {
        const text = program
          .replace('http://127.0.0.1:8000', () => url)
          .replace(/(["'])\/socket\.io\1/, (_, quote) => quote + pathname + quote)
        return (
          <details key={language} className="program">
            <summary>{language}</summary>
            <p className="muted">
              Needs <code>{needs}</code>. Its arguments are a token and the id of a job.
            </p>
            <pre>
              <code>{text}</code>
            </pre>
            <p className="actions">
              <Copy text={text} />
            </p>
          </details>
        )
      })}
    </>
  )
}
