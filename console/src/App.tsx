/** The page at `/`: the token form, then the list of jobs, one job, or the form for a new job. */
import { lazy, Suspense, useCallback, useEffect, useRef, useState } from 'react'
import { type Api, ApiProvider, connect, errorText } from './api'
import { JobsPage } from './jobs/JobsPage'
import { type Route, useRoute } from './route'
import { Header } from './shared/Header'
import { serverAddress, storedToken, storeToken } from './shared/session'
import { TokenForm } from './TokenForm'

const JobPage = lazy(() => import('./job/JobPage').then(({ JobPage }) => ({ default: JobPage })))
const SubmitPage = lazy(() => import('./submit/SubmitPage').then(({ SubmitPage }) => ({ default: SubmitPage })))

export function App() {
  const { api, why, busy, enter } = useSession()
  const route = useRoute()
  const main = useRef<HTMLElement>(null)
  const place = route.at === 'job' ? route.id : route.at
  const first = useRef(true)
  // For a screen reader another view is another page, so the focus goes to its top.
  // biome-ignore lint/correctness/useExhaustiveDependencies: runs when the place changes
  useEffect(() => {
    if (!first.current) main.current?.focus()
    first.current = false
    scrollTo(0, 0)
  }, [place])
  return (
    <>
      {/* biome-ignore lint/a11y/useValidAnchor: a skip link; the part of the address after # is the route, so the click only moves the focus */}
      <a
        className="skip"
        href="#main"
        onClick={event => {
          event.preventDefault()
          main.current?.focus()
        }}
      >
        Skip to the content
      </a>
      <Header here="Jobs" root="">
        {api && (
          <button type="button" className="button small" onClick={() => api.signOut()} title={`Signed in as ${api.whoami.name}`}>
            <span className="wide-only">{api.whoami.name} · </span>Sign out
          </button>
        )}
      </Header>
      <main id="main" ref={main} tabIndex={-1}>
        {api ? (
          <ApiProvider value={api}>
            <Suspense fallback={<p className="quiet-note">Loading …</p>}>
              <View route={route} />
            </Suspense>
          </ApiProvider>
        ) : (
          <TokenForm why={why} busy={busy} onToken={enter} />
        )}
      </main>
    </>
  )
}

function View({ route }: { route: Route }) {
  if (route.at === 'job') return <JobPage key={route.id} id={route.id} />
  if (route.at === 'new') return <SubmitPage chosen={route.type} />
  return <JobsPage filters={route.filters} />
}

function useSession() {
  const [api, setApi] = useState<Api | null>(null)
  const [why, setWhy] = useState<string | null>(null)
  const [busy, setBusy] = useState(() => storedToken() !== null)

  const signOut = useCallback((reason?: string) => {
    storeToken(null)
    setApi(null)
    setWhy(reason ?? null)
  }, [])

  const enter = useCallback(
    async (token: string) => {
      setBusy(true)
      setWhy(null)
      try {
        const api = await connect(serverAddress(), token, signOut)
        storeToken(token)
        setApi(api)
      } catch (error) {
        setWhy(errorText(error))
      } finally {
        setBusy(false)
      }
    },
    [signOut],
  )

  useEffect(() => {
    const token = storedToken()
    if (token) void enter(token)
  }, [enter])
  return { api, why, busy, enter }
}
