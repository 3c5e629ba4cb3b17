import { useState } from 'react'

/** A button that copies a text. */
export function Copy({ text }: { text: string }) {
  const [done, setDone] = useState<boolean>()
  const copy = () =>
    navigator.clipboard.writeText(text).then(
      () => setDone(true),
      () => setDone(false),
    )
  // Browsers have a clipboard only for pages that came over a secure connection, or from this machine.
  if (!('clipboard' in navigator)) return null
  return (
    <>
      <button type="button" className="button small" onClick={() => void copy()}>
        Copy
      </button>
      <span role="status" className="muted">
        {done === undefined ? '' : done ? 'Copied' : 'The browser did not allow it'}
      </span>
    </>
  )
}
