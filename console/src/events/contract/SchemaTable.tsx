import { Text } from './Text'
import type { Piece, Table } from './tables'

/** One schema: a table of its fields, or its type in words. */
export function SchemaTable({ table: { title, type, description, rows } }: { table: Table }) {
  if (rows.length === 0) {
    return (
      <>
        <p>
          <Type pieces={type} />
        </p>
        <Text>{description}</Text>
      </>
    )
  }
  return (
    <table>
      {title && <caption>{title}</caption>}
      <thead>
        <tr>
          <th scope="col">Field</th>
          <th scope="col">Type</th>
          <th scope="col">Meaning</th>
        </tr>
      </thead>
      <tbody>
        {rows.map(row => (
          <tr key={row.name}>
            <th scope="row">
              <code>{row.name}</code>
              {!row.required && <span className="muted"> optional</span>}
            </th>
            <td>
              <Type pieces={row.type} />
            </td>
            <td>
              <Text>{row.description}</Text>
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  )
}

function Type({ pieces }: { pieces: Piece[] }) {
  return pieces.map((piece, index) => {
    if (typeof piece === 'string') return piece
    // biome-ignore lint/suspicious/noArrayIndexKey: the pieces of a type never change their places
    if ('code' in piece) return <code key={index}>{piece.code}</code>
    return (
      // biome-ignore lint/suspicious/noArrayIndexKey: as above
      <a key={index} href={`#type-${piece.type}`}>
        {piece.type}
      </a>
    )
  })
}
