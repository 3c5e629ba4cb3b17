// The bar over Swagger UI, which is a page of its own: the server has its files, and starts it.
import { createRoot } from 'react-dom/client'
import { Header } from '../shared/Header'
import { applyTheme } from '../shared/theme'
import '../shared/base.css'

applyTheme()
createRoot(document.getElementById('root')!).render(<Header here="Calls" root="../" />)
