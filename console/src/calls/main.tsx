// The bar over Swagger UI. Swagger UI itself is not built here: the server has its files, and the page starts it.
import { createRoot } from 'react-dom/client'
import { Header } from '../shared/Header'
import { applyTheme } from '../shared/theme'
import '../shared/base.css'

applyTheme()
createRoot(document.getElementById('root') as HTMLElement).render(<Header here="API" root="../" />)
