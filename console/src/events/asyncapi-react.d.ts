// Its own types lead to those of the parser, which is not here.
declare module '@asyncapi/react-component/lib/esm/without-parser' {
  import type { ComponentType } from 'react'

  const AsyncApi: ComponentType<{ schema: object; config: object }>
  export default AsyncApi
}

declare module '@asyncapi/parser/esm/*'
