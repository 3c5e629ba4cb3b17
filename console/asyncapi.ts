// How the component that shows the events contract gets into the build without the parser of the AsyncAPI project.
//
// The component has an entry point that takes a parsed document, but what that imports still leads to the whole parser: 2 MB, which compile code from text,
// so that the policy of the pages would stop them. What it really needs of it are the models around a parsed document. package.json leaves the parser's own
// dependencies out for the same reason.
import { fileURLToPath } from 'node:url'
import type { Plugin } from 'vite'

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const MODELS = here('src/events/asyncapi-models.ts')
const ABSENT = here('src/events/absent.ts')

const replaced: Record<string, string> = {
  '@asyncapi/parser': MODELS,
  '@asyncapi/parser/cjs/document': MODELS,
  '@asyncapi/specs': ABSENT,
  '@stoplight/spectral-core': ABSENT,
}

export function withoutAsyncApiParser(): Plugin {
  return {
    name: 'without-asyncapi-parser',
    enforce: 'pre',
    resolveId(id, importer) {
      if (id === './parser' && importer?.includes('/@asyncapi/react-component/lib/esm/helpers/')) return ABSENT
      return replaced[id] ?? null
    },
  }
}
