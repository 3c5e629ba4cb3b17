// Starts Swagger UI on the contract that lies beside the page. A file, not inline, so that a strict Content-Security-Policy holds.
const root = document.documentElement
const dark = window.matchMedia('(prefers-color-scheme: dark)')
const follow = () => root.classList.toggle('dark-mode', { dark: true, light: false }[root.dataset.theme] ?? dark.matches)
dark.addEventListener('change', follow)
new MutationObserver(follow).observe(root, { attributeFilter: ['data-theme'] })
follow()

// The token of the session, which all pages share: entered in one, it is there in the others, and gone with the tab.
const SCHEME = 'token'
const KEPT = 'runcast.token'
const keepToken = authorize => given => {
  sessionStorage.setItem(KEPT, given[SCHEME].value)
  return authorize(given)
}
const forgetToken = logout => names => {
  sessionStorage.removeItem(KEPT)
  return logout(names)
}
const useToken = () => {
  const token = sessionStorage.getItem(KEPT)
  if (token) window.ui.preauthorizeApiKey(SCHEME, token)
}

// Swagger UI fills every parameter with its example and would send it: filters that match nothing, ids that are not there, and an
// Idempotency-Key that makes the second submission a conflict. Here parameters start empty, or with their defaults.
const withoutExamples = ({ example, ...parameter }) => parameter
const startEmpty = holder => (Array.isArray(holder.parameters) ? { ...holder, parameters: holder.parameters.map(withoutExamples) } : holder)
const onEach = (change, members = {}) => Object.fromEntries(Object.entries(members).map(([name, member]) => [name, change(member)]))
const isObject = value => value !== null && typeof value === 'object' && !Array.isArray(value)
const withEmptyParameters = contract => ({
  ...contract,
  paths: onEach(path => onEach(part => (isObject(part) ? startEmpty(part) : part), startEmpty(path)), contract.paths),
  components: { ...contract.components, parameters: onEach(withoutExamples, contract.components?.parameters) },
})

window.ui = window.SwaggerUIBundle({
  url: 'openapi.json',
  dom_id: '#swagger-ui',
  deepLinking: true,
  displayRequestDuration: true,
  filter: true,
  onComplete: useToken,
  plugins: [
    {
      statePlugins: {
        auth: { wrapActions: { authorize: keepToken, logout: forgetToken } },
        spec: { wrapActions: { updateJsonSpec: update => contract => update(withEmptyParameters(contract)) } },
      },
    },
  ],
  tryItOutEnabled: true,
  validatorUrl: null, // the public validator would be sent the address of this server
})
