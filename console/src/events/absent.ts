// In place of what is imported by name only, and never reached. See ../../asyncapi.ts.
export default { schemas: {} }
export class Document {}
export class Parser {}
