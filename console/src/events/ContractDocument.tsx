// The contract, shown by the component of the AsyncAPI project.
import AsyncApi from '@asyncapi/react-component/lib/esm/without-parser'
import '@asyncapi/react-component/styles/default.min.css'
import './contract-document.css'
import { useMemo } from 'react'
import type { Contracts } from './App'
import { prepared } from './document'

const CONFIG = {
  schemaID: 'contract',
  show: { sidebar: false, messages: false, schemas: false, errors: true },
  receiveLabel: 'client → server',
  replyLabel: 'client → server',
  sendLabel: 'server → client',
  requestLabel: 'server → client',
}

export default function ContractDocument({ asyncapi, openapi }: Contracts) {
  const document = useMemo(() => prepared(asyncapi, openapi), [asyncapi, openapi])
  return <AsyncApi schema={document} config={CONFIG} />
}
