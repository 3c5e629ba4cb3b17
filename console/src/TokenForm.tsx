import { useState } from 'react'

/** Asks for a token, once in a session. */
export function TokenForm({ why, busy, onToken }: { why: string | null; busy: boolean; onToken(token: string): void }) {
  const [token, setToken] = useState('')
  return (
    <form
      className="card token"
      onSubmit={event => {
        event.preventDefault()
        if (token.trim()) onToken(token.trim())
      }}
    >
      <h1>Sign in with a token</h1>
      <p className="muted">
        On the machine of the server, <code>runcast token</code> prints one. The token is kept until this tab is closed.
      </p>
      <label htmlFor="token">Token</label>
      <input
        id="token"
        className="field mono"
        type="password"
        autoComplete="off"
        spellCheck={false}
        required
        // biome-ignore lint/a11y/noAutofocus: the only field of the page
        autoFocus
        value={token}
        aria-describedby={why ? 'token-why' : undefined}
        aria-invalid={why !== null}
        onChange={event => setToken(event.target.value)}
      />
      {why && (
        <p id="token-why" className="problem" role="alert">
          {why}
        </p>
      )}
      <button type="submit" className="button primary" disabled={busy}>
        {busy ? 'Signing in …' : 'Sign in'}
      </button>
    </form>
  )
}
