// The part of the AsyncAPI parser that its component uses: models of a document that has been parsed. See ../../asyncapi.ts.
export { isAsyncAPIDocument, isOldAsyncAPIDocument, isStringifiedDocument, toAsyncAPIDocument } from '@asyncapi/parser/esm/document.js'
export { Schema as SchemaV2 } from '@asyncapi/parser/esm/models/v2/schema.js'
export { unstringify } from '@asyncapi/parser/esm/stringify.js'
