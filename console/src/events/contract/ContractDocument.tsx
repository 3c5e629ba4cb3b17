/** The events contract for people who write a client: every event with its fields, their bounds, and the examples. */
import { useEffect, useMemo } from 'react'
import type { Contracts } from '../contracts'
import { pretty } from '../text'
import './contract.css'
import { describe, type Message, type Operation } from './description'
import { Programs } from './Programs'
import { SchemaTable } from './SchemaTable'
import { InlineText, Text } from './Text'

export default function ContractDocument({ contracts }: { contracts: Contracts }) {
  const description = useMemo(() => describe(contracts), [contracts])
  const { title, version, introduction, operations, types } = description
  // The browser looks for the place that an address names before this is loaded.
  useEffect(() => document.getElementById(location.hash.slice(1))?.scrollIntoView(), [])
  const sentBy = (sender: Operation['sender']) => operations.filter(operation => operation.sender === sender)
  return (
    <>
      <h2>
        {title} <span className="muted">{version}</span>
      </h2>
      <nav aria-label="Contents of the contract">
        <ul className="contents">
          {operations.map(({ name }) => (
            <li key={name}>
              <a href={`#event-${name}`}>{name}</a>
            </li>
          ))}
          <li>
            <a href="#connecting">how to connect</a>
          </li>
          <li>
            <a href="#types">types</a>
          </li>
          <li>
            <a href="../asyncapi.json">asyncapi.json</a>
          </li>
        </ul>
      </nav>
      <Text>{introduction}</Text>
      <h2 id="connecting">How to connect</h2>
      <Programs asyncapi={contracts.asyncapi} />
      <h2>From client to server</h2>
      {sentBy('client').map(operation => (
        <OperationText key={operation.name} operation={operation} />
      ))}
      <h2>From server to client</h2>
      {sentBy('server').map(operation => (
        <OperationText key={operation.name} operation={operation} />
      ))}
      <h2 id="types">Types</h2>
      <p>Both contracts share these.</p>
      {types.map(({ name, tables }) => (
        <section key={name}>
          <h3 id={`type-${name}`}>
            <code>{name}</code>
          </h3>
          {tables.map(table => (
            <SchemaTable key={table.title} table={table} />
          ))}
        </section>
      ))}
    </>
  )
}

function OperationText({ operation: { name, sender, summary, description, messages, replies } }: { operation: Operation }) {
  return (
    <section>
      <h3 id={`event-${name}`}>
        <code>{name}</code> <span className={`badge ${sender}`}>{sender === 'client' ? 'client → server' : 'server → client'}</span>
      </h3>
      <p className="summary">
        <InlineText>{summary}</InlineText>
      </p>
      <Text>{description}</Text>
      {messages.map(message => (
        <MessageText key={message.name} message={message} />
      ))}
      {replies.map(reply => (
        <div key={reply.name}>
          <h4>{reply.name === 'connect_error' ? 'Refusal' : 'Acknowledgement'}</h4>
          <MessageText message={reply} />
        </div>
      ))}
    </section>
  )
}

function MessageText({ message: { summary, tables, examples } }: { message: Message }) {
  return (
    <>
      <p>
        <InlineText>{summary}</InlineText>
      </p>
      {tables.map(table => (
        <SchemaTable key={table.title} table={table} />
      ))}
      {examples.map(example => (
        <figure key={example.summary}>
          <figcaption className="muted">
            Example: <InlineText>{example.summary}</InlineText>
          </figcaption>
          <pre>
            <code>{pretty(example.payload)}</code>
          </pre>
        </figure>
      ))}
    </>
  )
}
